"""The document: valid OpenAPI, complete, and the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser

import jsonschema
import pytest

from sipserver.api.rest import openapi, reference
from sipserver.api.rest.operations import Operation
from tools import api_document


@pytest.fixture
async def operations() -> Sequence[Operation]:
    return await api_document.operations()


async def test_every_reference_leads_somewhere_and_every_schema_is_one(operations: Sequence[Operation]) -> None:
    told = openapi.document(operations)
    schemas = told["components"]["schemas"]
    text = json.dumps(told)
    references = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert references <= set(schemas)
    assert {"CreateCall", "Call", "CallPage", "Problem"} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


async def test_every_operation_is_there_with_its_scope_and_its_refusals(operations: Sequence[Operation]) -> None:
    told = openapi.document(operations)
    assert told["openapi"] == "3.1.0"
    for operation in operations:
        said = told["paths"][f"/api/v1{operation.path}"][operation.method.lower()]
        assert said["operationId"] == operation.name
        assert operation.scope.value in said["description"]
        assert {"401", "404", "422", "429", "503", str(operation.status)} <= set(said["responses"])
    assert len({operation.name for operation in operations}) == len(operations)


async def test_bodies_and_files_are_as_they_are(operations: Sequence[Operation]) -> None:
    paths = openapi.document(operations)["paths"]
    export = paths["/api/v1/usage/export"]["get"]["responses"]["200"]["content"]
    assert set(export) == {"application/json", "text/csv"}
    text = paths["/api/v1/dialplans/validate"]["post"]["requestBody"]["content"]
    assert text == {"application/yaml": {}}, "a text that a program may read as more than a text"
    assert paths["/api/v1/calls/{id}/record"]["post"]["requestBody"]["required"] is False
    assert paths["/api/v1/calls/{id}/say"]["post"]["requestBody"]["required"] is True


async def test_all_ways_to_succeed_and_bodies_that_are_too_large_are_told(operations: Sequence[Operation]) -> None:
    paths = openapi.document(operations)["paths"]
    for path, method, statuses in (
        ("/calls/create", "post", {"200", "201", "413"}),
        ("/dialplans/{name}", "put", {"200", "201", "413"}),
        ("/dialplans/validate", "post", {"200", "413"}),
        ("/calls/{id}/recording", "get", {"200", "206", "416"}),
    ):
        assert statuses <= set(paths[f"/api/v1{path}"][method]["responses"]), path


async def test_what_may_be_sent_again_says_so(operations: Sequence[Operation]) -> None:
    paths = openapi.document(operations)["paths"]
    for path, statuses in (
        ("/calls/create", {"200", "201", "409", "422"}),
        ("/users", {"200", "201", "409", "422"}),
        ("/keys", {"201", "409", "422"}),
        ("/webhooks/{endpoint}/rotate", {"200", "409", "422"}),
    ):
        said = paths[f"/api/v1{path}"]["post"]
        assert "Idempotency-Key" in {each["name"] for each in said["parameters"]}, path
        assert set(said["responses"]) & {"200", "201", "409", "422"} == statuses, path
    for path in ("/login", "/dialplans/validate", "/privacy/export"):
        assert not paths[f"/api/v1{path}"]["post"]["parameters"], path


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "html"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name == "href" and value and value.startswith("#"):
                self.links.add(value[1:])

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert self.open.pop() == tag


async def test_the_page_is_whole(operations: Sequence[Operation]) -> None:
    reader = Reader()
    reader.feed(openapi.page(operations))
    assert not reader.open
    assert reader.links <= reader.ids
    assert {operation.name for operation in operations} <= reader.ids


async def test_the_table_in_the_docs_is_up_to_date(operations: Sequence[Operation]) -> None:
    written = api_document.DOCUMENT.read_text()
    assert written == reference.filled(written, operations), "run: python -m tools.api_document"


def test_a_document_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        reference.filled("# REST API\n", [])
