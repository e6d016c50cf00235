"""A view that fell too far behind the store is loaded anew, while the store goes on."""

from __future__ import annotations

import pytest

from colonist_protocol.function import GetFunctions
from colonist_protocol.process import CloseFailed, RemoveProcess, State
from colonist_server.repo import keys
from colonist_server.repo.records import ColonyRecord, encode
from colonist_server.repo.view import View
from tests.server.people import World, function_of, world
from tests.support.clock import virtual
from tests.support.rooms import COLONY, key, settle
from tests.support.stores import HeldLoadStore

ADA, UMA = key("ada"), key("uma")


async def _work(made: World, *outcomes: str) -> list[str]:
    ids = []
    for outcome in outcomes:
        id = (await made.submit("uma", priority=1)).processid
        await made.assign("ada")
        if outcome == "success":
            await made.close("ada", id)
        else:
            await made.call(CloseFailed(processid=id), ADA)
        ids.append(id)
    return ids


@pytest.mark.parametrize("is_late", [False, True])
@virtual
async def test_what_is_counted_stays_right_when_the_view_is_loaded_anew(
    caplog: pytest.LogCaptureFixture, is_late: bool
) -> None:
    async with HeldLoadStore(is_late=is_late) as store, world(store) as made:
        await made.populate()
        await made.call(function_of("ada"), ADA)
        done = await _work(made, *["success"] * 5, "failed")
        await made.call(RemoveProcess(processid=done[1]), UMA)
        await settle()
        store.gate.clear()
        store.forget()
        await settle()  # now the load waits for the gate, and others go on
        store.remember()
        done += await _work(made, *["success"] * 3, "failed")
        for id in (done[0], done[-1]):
            await made.call(RemoveProcess(processid=id), UMA)
        store.gate.set()
        await settle()
        await _work(made, "success")
        await settle()
        assert "loading the view anew" in caplog.text
        assert made.colony.closed == [0, 0, 7, 1, 0]
        [function] = await made.call(GetFunctions(colonyname=COLONY), ADA)
        assert function["counter"] == 9
        assert len(await made.list(State.SUCCESS)) == 7


def test_the_end_of_an_old_colony_does_not_hide_the_new_one_of_its_name() -> None:
    view = View()
    old, new = keys.colony(b"old!"), keys.colony(b"new!")
    record = encode(ColonyRecord(name=COLONY, owner=ADA.id))
    view.apply(old, record, 1)
    view.apply(new, record, 3)
    view.apply(old, None, 2)
    assert view.colonies[COLONY].key == new
    assert set(view.tags) == {b"new!"}
