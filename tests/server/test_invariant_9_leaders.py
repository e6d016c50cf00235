"""Store invariant 9 over changes of leaders: packed = consumed once, runs = planned times.

Of two nodes the leader is killed at each commit in turn, before it takes effect or after. The other
goes on; what was killed starts again meanwhile. Also deadlines, which ring once, on the length that
was asked for, whatever the clocks of the nodes say.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from colonist_core.process import What
from colonist_protocol.process import State
from colonist_server.loops import crons as loop_of_crons
from colonist_server.repo import firings, keys
from colonist_server.repo.new_workflow import NewWorkflow
from colonist_server.repo.records import decode_closed
from tests.server import test_invariant_9_crons as of_crons
from tests.server.test_invariant_9_generators import ARGUMENTS, SPEC, TIMEOUT_S, TRIGGER, Books
from tests.support.clock import virtual
from tests.support.cluster import Cluster, cluster
from tests.support.generators import add
from tests.support.rooms import settle

DIE = pytest.mark.parametrize("way", ["before", "after"])


@pytest.fixture(params=["at once", "in steps", "together"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether a run is one commit; else each workflow is staged, or runs share a commit."""
    if request.param == "in steps":
        monkeypatch.setattr(NewWorkflow, "fits", lambda *_: False)
        monkeypatch.setattr(firings, "MAX_OPS", 2)
    if request.param == "together":
        monkeypatch.setattr(loop_of_crons, "MANY", 1)
    return request.param


async def _replace(made: Cluster) -> None:
    """Where the leader was killed: let it be gone, and start it again under its name."""
    died = asyncio.create_task(made["a"].line.died.wait())
    with suppress(TimeoutError):
        async with asyncio.timeout(of_crons.UNTIL_S):
            await died
        await made.kill("a")
        await asyncio.sleep(1)
        await made.start("a")
    died.cancel()


@DIE
@virtual
async def test_runs_are_planned_times_over_leaders(path: str, way: str) -> None:
    stops = range(0, 76, 3) if path == "in steps" else range(20)
    met = [await _runs(at, way) for at in stops]
    assert met[0]
    assert not met[-1]


async def _runs(at: int, way: str) -> bool:
    of_crons._begin_anew()
    async with cluster() as made:
        crons = await of_crons._prepare(made.store)
        await made.start("a")
        assert await made.elected() is made["a"]
        made["a"].line.arm(at, way)
        first = made["a"].line
        await made.start("b")
        async with asyncio.TaskGroup() as group:
            group.create_task(_replace(made))
            group.create_task(asyncio.sleep(of_crons.UNTIL_S - 3))
        await _until(of_crons.UNTIL_S)
        of_crons._check(made.store, crons)
        return first.died.is_set()


async def _until(time_s: float) -> None:
    await asyncio.sleep(time_s - asyncio.get_running_loop().time())
    await settle(300)


@DIE
@pytest.mark.parametrize("path", ["at once", "in steps"], indirect=True)
@virtual
async def test_each_argument_is_consumed_once_over_leaders(path: str, way: str) -> None:
    met = [await _firings(at, way) for at in range(50 if path == "in steps" else 12)]
    assert met[0]
    assert not met[-1]


async def _firings(at: int, way: str) -> bool:
    books = Books()
    async with cluster("a", "b") as made:
        assert await made.elected() is made["a"]
        await made["b"].bench.found("e1")
        id = await add(made["b"].bench, spec=SPEC, trigger=TRIGGER, timeout=TIMEOUT_S)
        await asyncio.sleep(0.1)
        first = made["a"].line
        first.arm(at, way)
        for number in range(0, 10, 2):
            packed = ARGUMENTS[number : number + 2]
            await books.pack(made["b"].bench, bytes.fromhex(id), packed)
            await asyncio.sleep(0.5)
        await asyncio.sleep(TIMEOUT_S + 10)
        await settle(300)
        books.check(made.store)
        return first.died.is_set()


@pytest.mark.parametrize(("of_a", "of_b"), [(0, 0), (4, 0), (0, 4), (-4, 0), (0, -4)])
@virtual
async def test_a_deadline_is_as_long_as_was_asked_for_whatever_the_clocks_say(
    of_a: float, of_b: float
) -> None:
    async with cluster() as made:
        await made.start("a", ahead_s=of_a)
        await made.start("b", ahead_s=of_b)
        assert await made.elected() is made["a"]
        await made["a"].bench.found("e1")
        await asyncio.sleep(0.5)
        for at in "ab":
            await made[at].bench.submit("e1", maxwaittime=10)
        await asyncio.sleep(9.9)
        assert len(made.store.under(keys.LIVE)) == 2
        await asyncio.sleep(0.2)
        assert not made.store.under(keys.LIVE)


@pytest.mark.parametrize("ahead_s", [0, 4, -4])
@virtual
async def test_what_was_loaded_is_timed_by_the_clock_that_wrote_it(ahead_s: float) -> None:
    async with cluster("l") as made:
        await made.start("a", ahead_s=ahead_s)
        await made["a"].bench.found("e1")
        await made["a"].bench.submit("e1", maxexectime=20, maxretries=0)
        await made["a"].bench.assign("e1")
        await asyncio.sleep(5)
        await made.start("b")
        await asyncio.sleep(0.5)
        await made.stop("l")
        await made.stop("a")
        assert (await made.elected()).name == "b"
        await _until(19.9)
        assert made.store.under(keys.LIVE)
        await _until(21.5)
        assert not made.store.under(keys.LIVE)


@virtual
async def test_a_deadline_rings_once_though_its_leader_dies() -> None:
    async with cluster("a", "b") as made:
        assert await made.elected() is made["a"]
        await made["a"].bench.found("e1")
        for _ in range(5):
            await made["a"].bench.submit("e1", maxwaittime=10)
        made["a"].line.arm(2, "after")
        await made["a"].line.dead()
        await made.kill("a")
        died_at = asyncio.get_running_loop().time()
        assert made.store.under(keys.LIVE)
        await asyncio.sleep(5)
        assert died_at < 11
        assert not made.store.under(keys.LIVE)
        ends = [decode_closed(item.value).live for item in made.store.under(keys.CLOSED)]
        assert [end.state for end in ends] == [State.FAILED] * 5
        whats = [[event.what for event in end.events] for end in ends]
        assert whats == [[What.WAITED_OUT]] * 5
