"""Store invariant 9: the runs of a cron are its planned times, whatever stops wherever.

A node is stopped at each commit in turn, before it takes effect or after; an answer gets lost, or
the commit takes effect only later; a second node that believes to lead runs crons too. Each with
workflows of one commit and with workflows that are staged.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress

import pytest

from colonist_protocol.times import SECOND_NS
from colonist_server.loops import crons as loop_of_crons
from colonist_server.repo import keys
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.records import WorkflowState, decode_birth, decode_cron, decode_workflow
from tests.support.clock import virtual
from tests.support.crons import add
from tests.support.generators import node, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import EPOCH_NS, Bench, bench, settle
from tests.support.stopping_store import WAYS, StoppingStore, remove_opened

SPEC = workflow(node("a"), node("b", "a"), node("c", "a"))
UNTIL_S = 48.0
INTERVAL = "interval"
EXPRESSION = "expression"
TWIN = "twin"

# More than any life commits, so the last stops of each sweep disturb nothing.
AT_ONCE = range(20)
IN_STEPS = range(76)


@pytest.fixture(params=["at once", "in steps", "together"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a run is one commit; else each workflow is staged, or runs share a commit."""
    if request.param == "in steps":
        monkeypatch.setattr(NewWorkflow, "fits", lambda *_: False)
    if request.param == "together":
        monkeypatch.setattr(loop_of_crons, "MANY", 1)
    return request.param


async def _prepare(store: MemoryStore) -> dict[str, bytes]:
    """A cron of each kind, every ten seconds, and another one that runs at the same moments."""
    async with bench(store) as server:
        await server.found("e1")
        return {
            INTERVAL: bytes.fromhex(await add(server, name="i", spec=SPEC, interval=10)),
            EXPRESSION: bytes.fromhex(
                await add(server, name="x", spec=SPEC, cronexpression="5/10 * * * * *")
            ),
            TWIN: bytes.fromhex(
                await add(server, name="y", spec=SPEC, cronexpression="5/10 * * * * ?")
            ),
        }


async def _live(store: MemoryStore, node: str = "node-1") -> None:
    async with bench(store, node=node):
        await asyncio.sleep(UNTIL_S - asyncio.get_running_loop().time())
        await settle(300)


async def _until_stopped(store: StoppingStore) -> None:
    """A node works until its end, or until it is killed in the middle."""
    life = asyncio.create_task(_live(store))
    stop = asyncio.create_task(store.stopped.wait())
    await asyncio.wait([life, stop], return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    life.cancel()
    with suppress(asyncio.CancelledError):
        await life


def _planned(store: MemoryStore, crons: dict[str, bytes]) -> set[bytes]:
    """The workflows that should be: of every planned time one."""
    first_ns = decode_cron(store._items[keys.cron(crons[INTERVAL])].value).turn.at_ns
    while first_ns > EPOCH_NS + 10.5 * SECOND_NS:
        first_ns -= 10 * SECOND_NS
    times = {crons[INTERVAL]: [first_ns + each * SECOND_NS for each in range(0, 38, 10)]}
    for kind in (EXPRESSION, TWIN):
        times[crons[kind]] = [EPOCH_NS + each * SECOND_NS for each in range(5, 48, 10)]
    wanted: set[bytes] = set()
    for cid, planned in times.items():
        for number, at_ns in enumerate(planned, 1):
            made, mark = cid[4:12], number.to_bytes(8, "big") + at_ns.to_bytes(8, "big")
            twenty = made + hashlib.sha3_256(cid + mark).digest()
            wanted.add(keys.workflow_id(cid[: keys.TAG_BYTES], at_ns, twenty))
    return wanted


def _check(store: MemoryStore, crons: dict[str, bytes]) -> None:
    heads = {
        key[len(keys.WORKFLOW) :]: decode_workflow(item.value)
        for key, item in store._items.items()
        if key.startswith(keys.WORKFLOW)
    }
    assert set(heads) == _planned(store, crons)
    assert {head.state for head in heads.values()} == {WorkflowState.OPEN}
    for prefix in (keys.BIRTH, keys.LIVE):
        found = [key[len(prefix) :] for key in store._items if key.startswith(prefix)]
        assert sorted(found) == sorted(
            keys.member(wid, each) for wid in heads for each in (1, 2, 3)
        )
    for wid, head in heads.items():
        pids = [keys.birth(keys.member(wid, each)) for each in (1, 2, 3)]
        births = [decode_birth(store._items[pid].value) for pid in pids]
        assert {birth.submitted_ns for birth in births} == {head.submitted_ns}, "of one try"
    for cid in crons.values():
        record = decode_cron(store._items[keys.cron(cid)].value)
        assert (record.pending, record.disabled) == (None, "")


@pytest.mark.parametrize("way", WAYS)
@virtual
async def test_runs_are_planned_times_wherever_it_stops(path: str, way: str) -> None:
    stops = IN_STEPS if path == "in steps" else AT_ONCE
    met = [await _story(at, way) for at in stops]
    assert met[0]
    assert not met[-1]


@virtual
async def test_a_run_that_was_made_and_removed_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NewWorkflow, "fits", lambda *_: False)
    removed = 0
    for at in range(1, 16):
        _begin_anew()
        async with StoppingStore() as store:
            await _prepare(store)
            store.arm(at, "after")
            await _until_stopped(store)
            store.arm(-1, "")
            gone = await remove_opened(store)
            removed += len(gone)
            async with bench(store):
                await asyncio.sleep(30)
                await settle(300)
            assert not [wid for wid in gone if keys.workflow(wid) in store._items]
    assert removed > 3


def _begin_anew() -> None:
    """Each story begins at the same time."""
    loop = asyncio.get_running_loop()
    loop._clock.now = 0.0  # pyright: ignore[reportAttributeAccessIssue] - of the virtual loop


async def _story(at: int, way: str) -> bool:
    _begin_anew()
    async with StoppingStore() as store:
        crons = await _prepare(store)
        store.arm(at, way)
        await _until_stopped(store)
        if store.stopped.is_set():
            store.arm(-1, "")
            await _live(store)
        _check(store, crons)
        return store.was_met


@virtual
async def test_two_nodes_that_both_believe_to_lead_run_each_time_once(path: str) -> None:
    async with MemoryStore() as store:
        crons = await _prepare(store)
        async with asyncio.TaskGroup() as group:
            group.create_task(_live(store))
            group.create_task(_live(store, "node-2"))
        _check(store, crons)


@virtual
async def test_a_server_that_is_stopped_and_started_again_runs_each_time_once(path: str) -> None:
    async with MemoryStore() as store:
        crons = await _prepare(store)
        while asyncio.get_running_loop().time() < UNTIL_S:
            async with bench(store) as server:
                await _work(server)
        _check(store, crons)


async def _work(server: Bench) -> None:
    del server
    await asyncio.sleep(2.9)
