"""An assignment whose commit was neither acknowledged nor refused: it may come, and nobody has it.

The store says so after a while (etcd was away); what was sent may have been carried out before, or
is long after. Whoever it was for was told of an error, so the process must go to somebody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from colonist_core.matching import Placement
from colonist_core.process import Live, What
from colonist_protocol.process import AssignProcess, Process, State
from colonist_server.repo import keys, unsure
from colonist_server.repo.records import decode_live
from colonist_server.store.interface import Guard, Op, Put, Revision, UnavailableError
from tests.support.clock import virtual
from tests.support.cluster import Cluster, Line, cluster
from tests.support.rooms import COLONY, Refused, key

GIVEN_UP_S = 0.5
SOON_S = 2


def lose_answer(
    line: Line, *, lands_s: float | None, lost: Sequence[What] = (What.ASSIGNED,)
) -> None:
    """The next commits that do `lost` are given up; they land after `lands_s`, or never."""
    commit = line.commit
    left = list(lost)
    tasks: set[asyncio.Task[Revision | None]] = set()

    async def unsure(guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        what = _last_event(ops)
        if what is None or what not in left:
            return await commit(guards, ops)
        left.remove(what)
        if lands_s is not None:
            tasks.add(asyncio.create_task(_land(line, lands_s, guards, ops)))
        await asyncio.sleep(GIVEN_UP_S)
        raise UnavailableError("etcd does not answer: it is not known whether it was done")

    line.__dict__["commit"] = unsure


async def _land(
    line: Line, after_s: float, guards: Sequence[Guard], ops: Sequence[Op]
) -> Revision | None:
    await asyncio.sleep(after_s)
    return await line.shared.commit(guards, ops)


def _last_event(ops: Sequence[Op]) -> What | None:
    for op in ops:
        if isinstance(op, Put) and op.key.startswith(keys.LIVE):
            events = decode_live(op.value).events
            return What(events[-1].what) if events else None
    return None


def _whats(made: Cluster, id: str) -> list[What]:
    (item,) = made.store.under(keys.live(bytes.fromhex(id)))
    return [What(event.what) for event in decode_live(item.value).events]


LANDS = pytest.mark.parametrize("lands_s", [None, 0.0, 3.0])


@LANDS
@virtual
async def test_an_assignment_that_came_after_all_is_handed_back(lands_s: float | None) -> None:
    async with cluster("b", "a") as made:
        await made["b"].bench.found("e1", "e2")
        id = (await made["b"].bench.submit("e2", maxexectime=-1)).processid
        await asyncio.sleep(0.3)
        lose_answer(made["a"].line, lands_s=lands_s)
        with pytest.raises(Refused, match="unavailable"):
            await made["a"].bench.assign("e1", timeout=-1)
        await asyncio.sleep(lands_s or 0.0)
        process = await made["b"].bench.assign("e2", timeout=SOON_S)
        assert (process.processid, process.retries) == (id, 0)
        assert _whats(made, id)[-1] is What.ASSIGNED


@LANDS
@virtual
async def test_a_submit_that_gave_its_process_away_and_came_after_all(
    lands_s: float | None,
) -> None:
    async with cluster("a") as made:
        bench = made["a"].bench
        await bench.found("e1", "e2")
        asking = asyncio.create_task(bench.assign("e1", timeout=1))
        await asyncio.sleep(0.1)
        lose_answer(made["a"].line, lands_s=lands_s)
        with pytest.raises(Refused, match="unavailable"):
            await bench.submit("e2", maxexectime=-1)
        (said,) = await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(lands_s or 0.0)
        if lands_s is not None and not isinstance(said, Process):
            assert (await bench.assign("e2", timeout=SOON_S)).retries == 0


@pytest.mark.parametrize("lands_s", [None, 0.0, 3.0])
@virtual
async def test_a_hand_back_that_the_store_does_not_take_is_tried_again(
    lands_s: float | None,
) -> None:
    async with cluster("a") as made:
        bench = made["a"].bench
        await bench.found("e1", "e2")
        id = (await bench.submit("e2", maxexectime=-1)).processid
        lose_answer(made["a"].line, lands_s=lands_s, lost=[What.UNDELIVERED] * 3)
        answer = await bench.answer(AssignProcess(colonyname=COLONY, timeout=-1), key("e1"))
        assert answer.lost is not None
        answer.lost()
        process = await bench.assign("e2", timeout=10)
        assert process.processid == id


@LANDS
@virtual
async def test_an_assignment_that_nobody_waited_for_and_nobody_knows_of(
    lands_s: float | None,
) -> None:
    async with cluster("a") as made:
        bench = made["a"].bench
        await bench.found("e1", "e2")
        id = (await bench.submit("e2", maxexectime=-1)).processid
        lose_answer(made["a"].line, lands_s=lands_s, lost=[What.ASSIGNED] * 2)
        await _leave(asyncio.create_task(bench.assign("e1", timeout=-1)))
        process = await bench.assign("e2", timeout=10)
        assert process.processid == id


@LANDS
@virtual
async def test_a_waiter_is_not_kept_for_a_submitter_that_left(lands_s: float | None) -> None:
    async with cluster("a") as made:
        bench = made["a"].bench
        await bench.found("e1", "e2")
        asking = asyncio.create_task(bench.assign("e1", timeout=9))
        await asyncio.sleep(0.1)
        lose_answer(made["a"].line, lands_s=lands_s, lost=[What.ASSIGNED] * 2)
        await _leave(asyncio.create_task(bench.submit("e2", maxexectime=-1)))
        await asyncio.sleep(GIVEN_UP_S)
        await bench.submit("e2", maxexectime=-1)
        async with asyncio.timeout(10):
            await asking


async def _leave(call: asyncio.Task[Process]) -> None:
    await asyncio.sleep(GIVEN_UP_S / 2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


def test_of_what_never_comes_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsure, "MOST", 3)
    books = unsure.Unsure()
    for number in range(100):
        live = _assigned(bytes([number]))
        assert not books.note(bytes([number % 2]), live, None)
        books.note(bytes([number]), live, None)
    assert len(books) == 3
    assert max(len(heads) for heads in books._heads.values()) <= unsure.TRIES


def _assigned(head: bytes) -> Live:
    placement = Placement(type="t")
    return Live(
        State.RUNNING,
        0,
        0,
        placement,
        0,
        0,
        0,
        label="",
        initiator="",
        funcname="",
        head=head,
        changed_ns=0,
    )
