"""schemathesis walks the whole document against a real server: nothing answers otherwise than the document says.

Its runs are children, with a fixed seed and few examples. Refuses to know what operations do: that they do the right
thing is for the other tests.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from sipserver.api.rest.access import CSRF_HEADER
from sipserver.tenants.keys import ALL
from tests.api.rest.people import browser, login, made
from tests.api.rest.test_calls import a_call, key_of
from tests.api.rest.test_users import ID
from tests.harness.server import ServerProcess

PLAN = """
tenant: acme
targets: ["*@127.0.0.1:*"]
flows:
  main: [answer, {record: {stereo: true}}, {echo: {max_s: 60}}]
routes:
  - {match: {to: echo}, flow: main}
"""
"""Whatever is invented, no call leaves this machine."""
OPTIONS = (
    "--phases",
    "examples,coverage,fuzzing",
    "--max-examples",
    "5",
    "--no-shrink",
    "--seed",
    "7",
    "--no-color",
    "--workers",
    "1",
)
"""One worker: two at once parse Python for Hypothesis's names, and in 3.11 two threads in `ast.parse` may end in
SystemError (python/cpython#106905)."""
NOT_CHECKED = {
    "ignored_auth": "five wrong keys a second are borne from one address, then all of them get 429; see below",
    "allow_header_conformance": "a tenant may be called `validate`, so the path of that has the methods of a dialplan",
}
TAKEN = ("2xx", "3xx", "400", "401", "403", "404", "409", "412", "428", "429", "502", "503")
"""To what the document allows: never 422. 400 is about what the words say together, which no schema tells."""
REFUSED = ("400", "401", "403", "404", "405", "409", "412", "413", "415", "422", "428")
METHODS = ("PATCH", "OPTIONS")
"""Of those that an operation does not have: all of them would be a third of the time."""
TAKES_YAML = "putDialplan"
"""No schema tells what is a good dialplan: 422 is right for almost all that is invented."""
ENDS_ITS_KEY = ("deleteKey", "rotateKey")
"""A list of keys tells their ids, and schemathesis tries what it has seen."""
LEAVES = "logout"
FOR_PEOPLE = ("changePassword", "listSessions", "endOtherSessions", "endSession")
LONGEST_S = 240


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    made = ServerProcess(
        tmp_path_factory.mktemp("walked"),
        {"acme.yaml": PLAN},
        {"http": {"host": "127.0.0.1", "api_per_s": 10_000}, "login": {"per_address_per_s": 1000}},
    )
    yield made.start()
    assert made.stop() == 0
    assert "Traceback" not in made.log()
    assert '"level": "error"' not in made.log()


def program() -> str:
    beside = Path(sys.executable).with_name("schemathesis")
    found = str(beside) if beside.is_file() else shutil.which("schemathesis")
    assert found, "schemathesis is not installed: make setup-test"
    return found


def settings(folder: Path, known: dict[str, str]) -> Path:
    """known: name of a part of a path -> what is there; two of three requests ask for that."""
    lines = ["[phases.coverage]", f"unexpected-methods = {json.dumps(METHODS)}"]
    lines += ["[checks.positive_data_acceptance]", f"expected-statuses = {json.dumps(TAKEN)}"]
    lines += ["[checks.negative_data_rejection]", f"expected-statuses = {json.dumps(REFUSED)}"]
    lines += ["[[operations]]", f"include-operation-id = {json.dumps(TAKES_YAML)}"]
    lines += ["checks.positive_data_acceptance.enabled = false"]
    for name, value in known.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps([value])}"]
    lines += ["[parameters]", '"header.Idempotency-Key" = ""']  # what is invented twice would be another request
    lines += [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.67 }}' for name in known]
    file = folder / "schemathesis.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def walk(server: ServerProcess, folder: Path, headers: dict[str, str], *chosen: str, **known: str) -> str:
    """What schemathesis says at the end of a run without a mistake. Blocks."""
    command = [program(), "--config-file", str(settings(folder, known)), "run", *OPTIONS, *chosen]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    command += ["--exclude-checks", ",".join(NOT_CHECKED), "--generation-database", "none", "--request-timeout", "20"]
    command += [
        "--generation-with-security-parameters",
        "false",
        f"http://127.0.0.1:{server.http_port}/api/v1/openapi.json",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    return done.stdout


def operations_of(said: str) -> int:
    """Operations."""
    (line,) = [line for line in said.splitlines() if line.strip().startswith("Tested:")]
    return int(line.split(":")[1])


def only(*names: str) -> Sequence[str]:
    return [word for name in names for word in ("--include-operation-id", name)]


def without(*names: str) -> Sequence[str]:
    return [word for name in names for word in ("--exclude-operation-id", name)]


def by_key(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_every_operation_answers_as_its_document_says(server: ServerProcess, tmp_path: Path) -> None:
    key, apart = key_of(server, "acme", *ALL), (*ENDS_ITS_KEY, LEAVES, *FOR_PEOPLE)
    said = walk(server, tmp_path, by_key(key), *without(*apart), id=a_call(server), name="acme")
    document = json.loads(server.get("/api/v1/openapi.json"))
    operations = sum(len(methods) for methods in document["paths"].values())
    assert operations_of(said) == operations - len(apart)
    assert "Rate limited" not in said
    assert "operations returned only 401/403" not in said


@pytest.mark.parametrize("operation", ENDS_ITS_KEY)
def test_what_may_end_the_key_that_asks_answers_so_too(server: ServerProcess, tmp_path: Path, operation: str) -> None:
    key, other = key_of(server, "acme", *ALL), key_of(server)
    walk(server, tmp_path, by_key(key), *only(operation), key=other.split("_")[1])


@pytest.mark.parametrize("operations", [FOR_PEOPLE, (LEAVES,)])
async def test_what_is_for_people_answers_so_too(
    server: ServerProcess, tmp_path: Path, operations: tuple[str, ...]
) -> None:
    email = await made(server, f"{operations[0].lower()}@example.com", "owner")
    async with browser(server) as client:
        csrf = (await login(client, email))["csrf"]
        (cookie,) = client.cookie_jar
        headers = {"Cookie": f"{cookie.key}={cookie.value}", CSRF_HEADER: csrf}
        said = await asyncio.to_thread(walk, server, tmp_path, headers, *only(*operations))
        assert operations_of(said) == len(operations)


async def test_without_a_good_key_every_operation_is_refused(server: ServerProcess) -> None:
    """Each asks from an address of its own: from one of them the wrong keys would soon be too many."""
    document = json.loads(server.get("/api/v1/openapi.json"))
    asked = 0
    for path, methods in document["paths"].items():
        filled = path.replace("{id}", ID).replace("{user}", "0" * 32).replace("{session}", "0" * 32).replace("{", "")
        for method, said in methods.items():
            if said.get("security") == []:
                continue
            asked += 1
            connector = aiohttp.TCPConnector(local_addr=(f"127.0.1.{asked}", 0))
            async with aiohttp.ClientSession(f"http://127.0.0.1:{server.http_port}", connector=connector) as client:
                for headers in ({}, by_key("sips_none"), {"Authorization": "Basic bm86bm8="}, {"Cookie": "session=x"}):
                    async with client.request(method, filled.replace("}", ""), headers=headers) as answer:
                        assert answer.status == 401, (method, path, headers)
    assert asked > 50
