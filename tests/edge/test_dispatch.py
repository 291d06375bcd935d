"""Which cell gets a call, and which one gets it when the first does not take it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sipserver.edge.cells import CellAddress
from sipserver.edge.edge import CellState, Edge
from sipserver.edge.render import WINDOW
from tests.servers.kamailio import Caller, Cell, cells, header, running, sdp, status_of

pytestmark = pytest.mark.peers


async def _cell_of(edge: Edge, cell: Cell) -> CellState:
    return next(found for found in (await edge.state()).cells if found.uri == cell.address.uri)


async def _until_calls(edge: Edge, expected: int) -> None:
    async with asyncio.timeout(5):
        while sum(cell.calls for cell in (await edge.state()).cells) != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_calls_fill_one_cell_after_the_other_and_never_beyond_its_room(tmp_path: Path) -> None:
    async with (
        cells(Cell(calls=3), Cell(calls=3), Cell(calls=2)) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        dialogs = [caller.dialog() for _ in range(8)]
        for dialog in dialogs[:3]:
            assert status_of(await dialog.invite()) == 200
        assert [cell.now for cell in inside] == [3, 0, 0]
        for dialog in dialogs[3:]:
            assert status_of(await dialog.invite()) == 200
        assert [cell.now for cell in inside] == [3, 3, 2]

        refused = await caller.dialog().invite()
        assert status_of(refused) == 503
        assert int(header(refused, "Retry-After")) > 0

        assert status_of(await dialogs[0].bye()) == 200
        await _until_calls(edge, 7)
        assert status_of(await caller.dialog().invite()) == 200
        assert [cell.most for cell in inside] == [3, 3, 2]


async def test_a_call_goes_to_the_fullest_cell_that_has_a_place(tmp_path: Path) -> None:
    async with (
        cells(Cell(calls=3), Cell(calls=3)) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        dialogs = [caller.dialog() for _ in range(5)]
        for dialog in dialogs:
            assert status_of(await dialog.invite()) == 200
        for dialog in dialogs[:2]:
            assert status_of(await dialog.bye()) == 200
        await _until_calls(edge, 3)
        assert [cell.now for cell in inside] == [1, 2]
        assert status_of(await caller.dialog().invite()) == 200
        assert [cell.now for cell in inside] == [1, 3]


async def test_more_cells_than_are_compared_for_a_call_are_all_filled(tmp_path: Path) -> None:
    async with (
        cells(*(Cell(calls=1) for _ in range(2 * WINDOW + 3))) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        for taken in range(1, len(inside) + 1):
            assert status_of(await caller.dialog().invite()) == 200
            assert sum(cell.now for cell in inside[:WINDOW]) == min(taken, WINDOW)
        assert [cell.now for cell in inside] == [1] * len(inside)
        assert status_of(await caller.dialog().invite()) == 503


async def test_two_edges_fill_the_same_cells_to_the_last_place(tmp_path: Path) -> None:
    """Each counts only its own calls: a cell that the other has filled refuses, and the call goes on."""
    async with (
        cells(*(Cell("room", "full", calls=2) for _ in range(6))) as inside,
        running(tmp_path / "one", inside) as one,
        running(tmp_path / "two", inside) as two,
        Caller.open(one) as first,
        Caller.open(two) as second,
    ):
        for _ in range(6):
            for caller in (first, second):
                assert status_of(await caller.dialog().invite()) == 200
        assert [cell.now for cell in inside] == [2] * 6
        for caller in (first, second):
            assert status_of(await caller.dialog().invite()) == 503


async def test_a_burst_fills_every_place_once(tmp_path: Path) -> None:
    """Several processes choose at the same time; no cell hears of more calls than it has room for."""
    async with (
        cells(*(Cell(calls=2) for _ in range(5))) as inside,
        running(tmp_path, inside, children=4) as edge,
        Caller.open(edge) as caller,
    ):
        dialogs = [caller.dialog() for _ in range(16)]
        for dialog in dialogs:
            caller.send(dialog.request("INVITE", body=sdp(9, "0")))
        finals: dict[str, int] = {}
        while len(finals) < 16:
            answer = await caller.receive()
            finals.setdefault(header(answer, "Call-ID"), status_of(answer))
        assert sorted(finals.values()) == [200] * 10 + [503] * 6
        assert [len({header(text, "Call-ID") for text in cell.of("INVITE")}) for cell in inside] == [2] * 5


@pytest.mark.parametrize(
    ("mode", "refusal"),
    [
        ("486 Busy Here", "full"),
        ("503 Service Unavailable", "draining"),
        ("silent", ""),
    ],
)
async def test_a_cell_that_does_not_take_a_call_passes_it_on(tmp_path: Path, mode: str, refusal: str) -> None:
    async with (
        cells(Cell(mode, refusal), Cell()) as (bad, good),
        running(tmp_path, (bad, good)) as edge,
        Caller.open(edge) as caller,
    ):
        for _ in range(3):  # whichever comes first
            dialog = caller.dialog()
            assert status_of(await dialog.invite()) == 200
            assert status_of(await dialog.bye()) == 200
        assert bad.of("INVITE")
        assert len(good.of("BYE")) == 3
        await _until_calls(edge, 0)


async def test_a_cell_that_is_gone_costs_a_moment_and_comes_back_by_itself(tmp_path: Path) -> None:
    async with (
        cells(Cell(), Cell()) as (mortal, good),
        running(tmp_path, (mortal, good)) as edge,
        Caller.open(edge) as caller,
    ):
        mortal.close()
        for _ in range(2):
            dialog = caller.dialog()
            assert status_of(await dialog.invite()) == 200
            await dialog.bye()
        async with asyncio.timeout(5):
            while (await _cell_of(edge, mortal)).state == "active":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await mortal.open(mortal.port)
        async with asyncio.timeout(5):
            while (await _cell_of(edge, mortal)).state != "active":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert status_of(await caller.dialog().invite()) == 200


async def test_a_message_without_an_answer_reaches_two_cells_and_marks_none(tmp_path: Path) -> None:
    async with (
        cells(*(Cell("silent") for _ in range(4))) as inside,
        running(tmp_path, inside, probe_s=30) as edge,
        Caller.open(edge) as caller,
    ):
        assert status_of(await caller.dialog().invite()) == 504
        assert sum(bool(cell.of("INVITE")) for cell in inside) == 2
        assert [cell.state for cell in (await edge.state()).cells] == ["active"] * 4
        await _until_calls(edge, 0)
        for cell in inside:
            cell.mode = "answer"
        dialogs = [caller.dialog() for _ in range(16)]  # there is room for as many, in those that said nothing too
        for dialog in dialogs:
            assert status_of(await dialog.invite()) == 200
        for dialog in dialogs:
            assert status_of(await dialog.bye()) == 200
        await _until_calls(edge, 0)


async def test_a_call_that_cannot_be_followed_takes_no_place(tmp_path: Path) -> None:
    async with cells(Cell(calls=1)) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        for contact in ("*", "<", ""):
            answer = await caller.dialog(contact=contact or " ").invite()
            assert status_of(answer) == 400, contact
        assert not cell.of("INVITE")
        await _until_calls(edge, 0)
        assert status_of(await caller.dialog().invite()) == 200


async def test_all_cells_refuse(tmp_path: Path) -> None:
    async with (
        cells(*(Cell("486 Busy Here", "full") for _ in range(3))) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        refused = await caller.dialog().invite()
        assert status_of(refused) == 503
        assert header(refused, "Retry-After")
        assert not header(refused, "X-Sipserver-Refusal")
        assert [len(cell.of("INVITE")) for cell in inside] == [1, 1, 1]
        await _until_calls(edge, 0)


@pytest.mark.parametrize("status", ["486 Busy Here", "603 Decline", "404 Not Found", "503 Service Unavailable"])
async def test_what_the_dialplan_says_goes_to_the_caller(tmp_path: Path, status: str) -> None:
    async with (
        cells(Cell(status), Cell(status)) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        assert f"SIP/2.0 {status}" in await caller.dialog().invite()
        assert sum(len(cell.of("INVITE")) for cell in inside) == 1
        await _until_calls(edge, 0)


async def test_a_cancelled_call_frees_its_place(tmp_path: Path) -> None:
    async with cells(Cell("ring")) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        caller.send(dialog.request("INVITE", body=sdp(9, "0")))
        await caller.receive(180)
        assert (await _cell_of(edge, cell)).calls == 1
        caller.send(dialog.request("CANCEL", again=True))
        assert status_of(await caller.receive(200)) == 200
        assert status_of(await dialog.finish()) == 487
        await _until_calls(edge, 0)


async def test_a_call_that_the_cell_hangs_up_frees_its_place(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        _, bye = cell.request_back("BYE", cell.of("INVITE")[0])
        cell.send(bye, edge.settings.inside_port)
        received = await caller.receive("BYE")
        assert "inside-server" not in received
        caller.send(_answer(received))
        await cell.wait_for("SIP/2.0")
        await _until_calls(edge, 0)


async def test_a_retransmitted_invite_is_one_call(tmp_path: Path) -> None:
    async with (
        cells(Cell("ring"), Cell("ring")) as inside,
        running(tmp_path, inside) as edge,
        Caller.open(edge) as caller,
    ):
        dialog = caller.dialog()
        for _ in range(3):
            caller.send(dialog.request("INVITE", body=sdp(9, "0"), again=bool(dialog.branch)))
        await caller.receive(180)
        assert sum(len(cell.of("INVITE")) for cell in inside) == 1
        await _until_calls(edge, 1)
        caller.send(dialog.request("CANCEL", again=True))
        await dialog.finish()
        await _until_calls(edge, 0)


async def test_calls_stay_counted_when_the_list_changes(tmp_path: Path) -> None:
    async with (
        cells(Cell(calls=1), Cell(calls=1)) as (first, second),
        running(tmp_path, (first,)) as edge,
        Caller.open(edge) as caller,
    ):
        dialog = caller.dialog()
        await dialog.invite()
        await edge.set_cells([first.address, second.address])
        assert (await _cell_of(edge, first)).calls == 1
        other = caller.dialog()
        assert status_of(await other.invite()) == 200
        assert second.now == 1
        assert status_of(await caller.dialog().invite()) == 503

        # A cell that leaves the list gets no new call, but its dialogs go on.
        await edge.set_cells([second.address])
        assert (await _cell_of(edge, first)).state == "disabled"
        assert status_of(await dialog.bye()) == 200
        assert status_of(await caller.dialog().invite()) == 503
        assert status_of(await other.bye()) == 200


async def test_the_calls_of_a_dead_cell_are_not_its_successors(tmp_path: Path) -> None:
    async with cells(Cell(calls=1)) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        await caller.dialog().invite()
        assert status_of(await caller.dialog().invite()) == 503
        await edge.set_cells([CellAddress("127.0.0.1", cell.port, 1, run="next")])
        assert (await _cell_of(edge, cell)).calls == 0
        assert status_of(await caller.dialog().invite()) == 200


async def test_draining_refuses_new_calls_and_keeps_the_running_ones(tmp_path: Path) -> None:
    async with cells(Cell()) as (cell,), running(tmp_path, (cell,)) as edge, Caller.open(edge) as caller:
        dialog = caller.dialog()
        await dialog.invite()
        await edge.drain(True)
        assert (await edge.state()).draining
        refused = await caller.dialog().invite()
        assert status_of(refused) == 503
        assert int(header(refused, "Retry-After")) > 0
        assert status_of(await dialog.bye()) == 200
        await edge.drain(False)
        assert status_of(await caller.dialog().invite()) == 200


async def test_no_cell_at_all(tmp_path: Path) -> None:
    async with running(tmp_path) as edge, Caller.open(edge) as caller:
        refused = await caller.dialog().invite()
        assert status_of(refused) == 503
        assert int(header(refused, "Retry-After")) > 0


def _answer(request: str, status: str = "200 OK") -> str:
    vias = "".join(f"{line}\r\n" for line in request.split("\r\n") if line.lower().startswith("via:"))
    return (
        f"SIP/2.0 {status}\r\n{vias}From: {header(request, 'From')}\r\nTo: {header(request, 'To')}\r\n"
        f"Call-ID: {header(request, 'Call-ID')}\r\nCSeq: {header(request, 'CSeq')}\r\nContent-Length: 0\r\n\r\n"
    )
