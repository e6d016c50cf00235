"""Crons in trouble: down time, clocks that are set, a full store, workflows in many commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from colonist_protocol.colony import PauseAssignments, RemoveColony
from colonist_protocol.cron import RemoveCron, RunCron
from colonist_protocol.process import State
from colonist_protocol.times import to_text
from colonist_protocol.user import AddUser, RemoveUser, User
from colonist_server.config import ServerConfig
from colonist_server.loops import crons as loop_of_crons
from colonist_server.repo import keys
from colonist_server.repo.clock import Timer
from colonist_server.repo.cron_ready import ReadyRuns
from colonist_server.repo.cron_runs import CronRuns
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.records import WorkflowState, decode_workflow
from colonist_server.store.interface import Guard, Op, Revision, Store
from colonist_server.work import at_work
from tests.support.clock import virtual
from tests.support.crons import MINUTELY, add, read, run_seconds, runs
from tests.support.generators import node, stored, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    EPOCH_NS,
    OWNER,
    Bench,
    LoopClock,
    bench,
    key,
    settle,
    until,
)

E1 = key("e1")
HOUR = 3600.0


# -- down time


@pytest.mark.parametrize("changes", [{"interval": 10}, {"cronexpression": "0/10 * * * * *"}])
@virtual
async def test_what_was_missed_while_the_server_was_down_is_one_run_at_the_start(changes) -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, **changes)
            await until(25)
        await until(207)
        async with bench(store):
            await until(225)
        assert run_seconds(store, id) == [10, 20, 207, 210, 220]


@virtual
async def test_a_random_cron_makes_up_for_what_it_missed_once() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, random=True)
        await until(305)
        async with bench(store):
            await until(331)
        found = [each for each in run_seconds(store, id) if each < 330]
        assert found[0] == 305, "at once, for all windows that were missed"
        assert [int(each // 10) for each in found[1:]] in ([31, 32], [30, 31, 32])


@virtual
async def test_down_time_shorter_than_the_wait_misses_nothing() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, cronexpression=MINUTELY)
        await until(55)
        async with bench(store):
            await until(130)
        assert run_seconds(store, id) == [60, 120]


@virtual
async def test_after_down_time_a_run_waits_for_the_one_before_as_ever() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, waitforprevprocessgraph=True)
            await until(35)
        async with bench(store) as server:
            await until(100)
            assert run_seconds(store, id) == [10]
            process = await server.assign("e1")
        async with bench(store) as server:
            await server.close("e1", process.processid)
            await settle()
            assert run_seconds(store, id) == [10, 100]


@virtual
async def test_the_one_before_that_ended_during_down_time_of_the_loop_is_seen_at_the_start() -> (
    None
):
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, waitforprevprocessgraph=True)
            await until(15)
            await server.close("e1", (await server.assign("e1")).processid)
        await until(100)
        async with bench(store):
            await until(101)
            assert run_seconds(store, id) == [10, 100]


# -- clocks that are set


class SetClock(LoopClock):
    """A wall clock that somebody sets; as the server's, it is never shown to go back."""

    def __init__(self) -> None:
        super().__init__()
        self.set_by_s = 0.0
        self.calls = 0

    def now_ns(self) -> int:
        wall_ns = EPOCH_NS + int((self._loop.time() + self.set_by_s) * 1e9)
        self._last_ns = max(wall_ns, self._last_ns + 1)
        return self._last_ns

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.calls += 1
        return super().call_at(when, callback)


@asynccontextmanager
async def clocked(store: Store) -> AsyncGenerator[tuple[Bench, SetClock]]:
    clock = SetClock()
    async with at_work(ServerConfig(owner=OWNER.id), store, clock, OWNER.id) as dispatch:
        yield Bench(dispatch), clock


def real(store: MemoryStore, id: str, clock: SetClock) -> list[float]:
    """When runs were started, on the clock by which this test waits, where it was set once."""
    return [round(each - clock.set_by_s, 3) for each in run_seconds(store, id)]


@virtual
async def test_a_clock_set_forward_brings_what_it_jumps_over_once_and_soon() -> None:
    async with MemoryStore() as store, clocked(store) as (server, clock):
        await server.found("e1")
        minutely = await add(server, name="m", cronexpression=MINUTELY)
        daily = await add(server, name="d", cronexpression="0 30 8 * * *")
        await until(90)
        assert run_seconds(store, minutely) == [60]
        clock.set_by_s = HOUR
        await until(400)
        found = real(store, minutely, clock)[1:]
        assert 90 < found[0] <= 120, "within the minute in which it looks at the clock"
        assert found[1:] == [each for each in range(120, 401, 60) if each > found[0]]
        assert real(store, daily, clock) == [found[0]]


@virtual
async def test_a_clock_set_back_runs_nothing_twice() -> None:
    async with MemoryStore() as store, clocked(store) as (server, clock):
        await server.found("e1")
        id = await add(server, cronexpression="0 0/10 * * * *")
        await until(1900)
        assert run_seconds(store, id) == [600, 1200, 1800]
        clock.set_by_s = -HOUR
        await until(1900 + HOUR)
        assert run_seconds(store, id) == [600, 1200, 1800]
        await until(HOUR + 3001)
        assert run_seconds(store, id) == [600, 1200, 1800, 2400, 3000]


@pytest.mark.parametrize("by_s", [HOUR, -HOUR])
@pytest.mark.parametrize("changes", [{"interval": 10}, {"cronexpression": "@every 10s"}])
@virtual
async def test_an_interval_keeps_its_pace_when_the_clock_is_set(by_s: float, changes) -> None:
    async with MemoryStore() as store, clocked(store) as (server, clock):
        await server.found("e1")
        id = await add(server, **changes)
        await until(25)
        clock.set_by_s = by_s
        counts: list[int] = []
        for each in range(100, 501, 100):
            await until(each)
            counts.append(len(runs(store, id)))
        # Set forward, the grid may be met anew: a run earlier or later than by the old one.
        assert [later - sooner for sooner, later in pairwise(counts)] == [10] * 4


@virtual
async def test_an_interval_goes_on_after_a_start_on_a_clock_that_was_set_back() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server)
            await until(35)
        before = len(runs(store, id))
        clock = SetClock()
        clock.set_by_s = -HOUR
        async with at_work(ServerConfig(owner=OWNER.id), store, clock, OWNER.id):
            await until(76)
        assert len(runs(store, id)) == before + 4


@virtual
async def test_waiting_costs_one_look_at_the_clock_a_minute_and_nothing_without_crons() -> None:
    async with MemoryStore() as store, clocked(store) as (server, clock):
        await server.found("e1")
        before = clock.calls
        await until(10 * HOUR)
        assert clock.calls == before
        for number in range(50):
            await add(server, name=f"k{number}", cronexpression="0 0 0 1 1 *")
        before = clock.calls
        await until(20 * HOUR)
        assert clock.calls - before <= 10 * 60 + 1


# -- large workflows


@virtual
async def test_a_workflow_that_fits_no_commit_appears_whole() -> None:
    nodes = [node("a"), *(node(f"n{number}", "a") for number in range(299))]
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, spec=workflow(*nodes))
        await server.call(RunCron(cronid=id), E1)
        assert [run.size for run in runs(store, id)] == [300]
        assert (await server.rooms.processes._writes.read(keys.cron(bytes.fromhex(id)))) is not None
        await until(21)
        assert run_seconds(store, id) == [0, 10, 20]
        assert len({run.submitted_ns for run in runs(store, id)}) == 3
        assert (await read(server, id))["prevprocessgraphid"]
        wids = [key[len(keys.WORKFLOW) :] for key in store._items if key.startswith(keys.WORKFLOW)]
        shown = [server.rooms.view.workflows[wid] for wid in wids]
        assert all(each.is_shown and each.state == State.WAITING for each in shown)


@virtual
async def test_a_cron_or_colony_that_is_removed_while_its_run_is_staged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NewWorkflow, "fits", lambda *_: False)
    for number in range(12):
        async with MemoryStore() as store, bench(store) as server:
            await server.found("e1")
            id = await add(server, interval=10)
            began = asyncio.get_running_loop().time()
            run = asyncio.create_task(server.answer(RunCron(cronid=id), E1))
            await settle(number)
            if number % 2:
                await server.call(RemoveColony(colonyname="dev"), OWNER)
            else:
                await server.call(RemoveCron(cronid=id), E1)
            await run
            await until(began + 60)
            assert not stored(store, keys.CRON, keys.CRON_NAME)
            left = [store._items[each].value for each in stored(store, keys.WORKFLOW)]
            assert len(left) <= 1 - number % 2
            assert all(decode_workflow(each).state == WorkflowState.OPEN for each in left)
            assert left or not stored(store, keys.BIRTH, keys.LIVE)


# -- errors


@virtual
async def test_while_the_store_is_full_runs_wait_and_then_come_once() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, cronexpression="0/10 * * * * *")
        await until(15)
        store.is_full = True
        await until(45)
        store.is_full = False
        await until(51)
        found = run_seconds(store, id)
        assert (found[0], found[-1], len(found)) == (10, 50, 3)
        assert 45 < found[1] <= 46.5


@virtual
async def test_a_fault_in_one_cron_leaves_the_others_and_the_server_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        bad = await add(server, name="bad")
        good = await add(server, name="good")
        serve = CronRuns.serve
        monkeypatch.setattr(loop_of_crons, "FAULT_RETRY_S", 62.0)

        async def faulty(self: CronRuns, cron, at_ns: int) -> None:
            if cron.id == bad:
                raise ZeroDivisionError
            await serve(self, cron, at_ns)

        monkeypatch.setattr(CronRuns, "serve", faulty)
        await until(55)
        assert (len(runs(store, bad)), len(runs(store, good))) == (0, 5)
        assert caplog.text.count("not run") == 1
        monkeypatch.setattr(CronRuns, "serve", serve)
        await until(75)
        assert len(runs(store, bad)) == 1


@pytest.mark.parametrize("fault", ["prepare", "start"])
@virtual
async def test_a_fault_in_what_is_done_together_leaves_each_run_to_itself(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(self: ReadyRuns, _: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ReadyRuns, fault, faulty)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        ids = [await add(server, name=f"k{each}", cronexpression=MINUTELY) for each in range(30)]
        await until(61)
        assert all(run_seconds(store, id) == [60] for id in ids)
    assert "ZeroDivisionError" in caplog.text


@virtual
async def test_a_run_by_hand_while_one_is_held_up_does_not_bring_the_next_too_early() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, waitforprevprocessgraph=True)
        await until(23)
        await server.call(RunCron(cronid=id), E1)
        for _ in range(2):
            await server.close("e1", (await server.assign("e1")).processid)
        await settle()
        await until(32)
        assert run_seconds(store, id) == [10, 23]
        await until(34)
        assert run_seconds(store, id) == [10, 23, 33]


@virtual
async def test_the_heap_does_not_grow_with_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_of_crons, "_SLACK", 5)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, interval=1000)
        for _ in range(50):
            await server.call(RunCron(cronid=id), E1)
        loop = server.rooms.crons.view._changed.__self__  # pyright: ignore[reportAttributeAccessIssue]
        assert len(loop._heap) <= 8
        await until(1001)
        assert len(runs(store, id)) == 51


class CommitsStore(MemoryStore):
    """Counts commits that make workflows."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        made = sum(op[0].startswith(keys.WORKFLOW) for op in ops)
        revision = await super().commit(guards, ops)
        if made and revision is not None:
            self.sizes.append(made)
        return revision


@virtual
async def test_many_crons_of_one_second_share_commits() -> None:
    async with CommitsStore() as store, bench(store) as server:
        await server.found("e1")
        ids = [await add(server, name=f"k{each}", cronexpression=MINUTELY) for each in range(300)]
        await until(125)
        assert all(run_seconds(store, id) == [60, 120] for id in ids)
        assert sum(store.sizes) == 600
        assert len(store.sizes) < 60
        assert (await read(server, ids[7]))["lastrun"] == to_text(EPOCH_NS + 120 * 10**9)


@pytest.mark.parametrize("what", ["pause", "creator", "by hand", "remove", "colony"])
@virtual
async def test_what_was_made_ready_is_not_used_when_anything_has_changed(what: str) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        user = User(colonyname=COLONY, userid=key("uma").id, name="uma")
        await server.call(AddUser(user=user), COLONY_OWNER)
        ids = [
            await add(server, key("uma"), name=f"k{each}", cronexpression=MINUTELY)
            for each in range(30)
        ]
        await until(59.9)  # they are ready
        wanted = 1
        if what == "pause":
            await server.call(PauseAssignments(colonyname=COLONY), COLONY_OWNER)
        elif what == "creator":
            await server.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
            wanted = 0
        elif what == "by hand":
            for id in ids:
                await server.call(RunCron(cronid=id), E1)
            wanted = 2
        elif what == "remove":
            for id in ids:
                await server.call(RemoveCron(cronid=id), E1)
            wanted = 0
        else:
            await server.call(RemoveColony(colonyname=COLONY), OWNER)
            wanted = 0
        await until(65)
        assert {len(runs(store, id)) for id in ids} == {wanted}
        if what == "creator":
            assert "disabledreason" in await read(server, ids[0])


@virtual
async def test_a_bundle_that_is_raced_falls_apart_into_single_runs() -> None:
    """Another node has run one of them, and this one has yet to hear of it."""
    async with LosingStore() as store, bench(store) as server:
        await server.found("e1")
        ids = [await add(server, name=f"k{each}", cronexpression=MINUTELY) for each in range(30)]
        store.loses = 2
        await until(65)
        assert store.loses == 0
        assert all(run_seconds(store, id) == [60] for id in ids)


class LosingStore(MemoryStore):
    """The next commits of many workflows lose, as if another node had been quicker."""

    loses = 0

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if sum(op[0].startswith(keys.WORKFLOW) for op in ops) > 1:
            self.loses -= 1
            if self.loses >= 0:
                return None
        return await super().commit(guards, ops)
