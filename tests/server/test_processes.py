"""Processes as members see them: lists, history, what is submitted, closing, births in memory."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest

from colonist_protocol import codec
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.log import AddLog
from colonist_protocol.process import (
    CancelProcess,
    CloseSuccessful,
    GetProcesses,
    GetProcessHistory,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
    SubmitFunctionSpec,
)
from colonist_protocol.times import from_text
from colonist_server.repo import keys
from colonist_server.repo.births import Births, Submitted, submitted
from colonist_server.repo.records import Birth, encode
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from colonist_server.store.interface import Change, Event
from tests.server.people import crashing, run_one, submit_of, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, key
from tests.support.stores import CountingStore

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")
CENTURY_NS = 100 * 366 * 86_400 * 10**9


# -- lists


@virtual
async def test_lists_are_in_the_order_of_the_protocol() -> None:
    async with world() as made:
        await made.populate()
        ended = {State.SUCCESS: [], State.FAILED: [], State.CANCELLED: []}
        outcomes = {"success": State.SUCCESS, "failed": State.FAILED, "cancelled": State.CANCELLED}
        for outcome in [*outcomes, *outcomes]:
            await asyncio.sleep(1)
            ended[outcomes[outcome]].insert(0, await run_one(made, outcome))
        low, high = [(await made.submit("uma", priority=p)).processid for p in (0, 5)]
        later = (await made.submit("uma")).processid
        assert await made.list(State.WAITING) == [high, low, later]
        for state, ids in ended.items():
            assert await made.list(state) == ids, state
        running = [(await made.assign("ada")).processid for _ in range(3)]
        assert await made.list(State.RUNNING) == running == [high, low, later]


@virtual
async def test_running_processes_are_listed_by_start_over_a_restart_and_a_redelivery() -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.populate()
            for priority in range(9):  # started in the opposite order of submission
                await made.submit("uma", priority=priority)
            running = [(await made.assign("ada")).processid for _ in range(9)]
            assert await made.list(State.RUNNING) == running
        async with world(store) as made:
            assert await made.list(State.RUNNING) == running
            again = await made.assign("ada")
            assert again.processid in running
            assert await made.list(State.RUNNING) == running


@virtual
async def test_lists_are_filtered_by_each_and_all() -> None:
    async with world() as made:
        await made.populate()
        await made.hire("gus", type="gpu")
        ids = {}
        for state in ("waiting", "success"):
            for label, type, who in itertools.product(("a", "b"), ("cli", "gpu"), ("uma", "ben")):
                made_here = await made.submit(who, label=label, executortype=type)
                ids[state, label, type, who] = made_here.processid
                if state == "success":
                    worker = "ada" if type == "cli" else "gus"
                    while (got := await made.assign(worker)).processid != made_here.processid:
                        ids[state, label, type, who] = got.processid
                        break
                    await made.close(worker, got.processid)
            if state == "waiting":
                await made.call(RemoveAllProcesses(colonyname=COLONY, state=0), COLONY_OWNER)
        for label, type, who in itertools.product(("", "a"), ("", "gpu"), ("", "ben")):
            found = await made.list(State.SUCCESS, label=label, executortype=type, initiator=who)
            expected = [
                id
                for (state, a_label, a_type, a_who), id in ids.items()
                if state == "success"
                and label in ("", a_label)
                and type in ("", a_type)
                and who in ("", a_who)
            ]
            assert found == expected[::-1]


@virtual
async def test_waiting_lists_are_filtered_too() -> None:
    async with world() as made:
        await made.populate()
        red = (await made.submit("uma", label="red")).processid
        blue = (await made.submit("ben", label="blue", executortype="gpu")).processid
        assert await made.list(State.WAITING, label="red") == [red]
        assert await made.list(State.WAITING, executortype="gpu") == [blue]
        assert await made.list(State.WAITING, initiator="ben", label="blue") == [blue]
        assert await made.list(State.WAITING, initiator="ben", label="red") == []
        refused = await made.refuse(
            GetProcesses(colonyname=COLONY, count=1, initiator="nobody"), ADA
        )
        assert refused.failure.code == "not_found"


@pytest.mark.parametrize("state", State)
@virtual
async def test_count_is_the_most_that_is_listed(state: State) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for count in (0, 1, 100):
            assert len(await made.list(state, count=count)) == min(count, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 101}, "Count is larger than MaxCount limit <100>"),
        ({"count": -1}, "Count is negative"),
        ({"count": 1, "state": -1}, "invalid msg.State"),
        ({"count": 1, "state": 5}, "invalid msg.State"),
    ],
)
@virtual
async def test_a_list_that_makes_no_sense_is_refused(changes: dict[str, int], words: str) -> None:
    async with world() as made:
        await made.populate()
        refused = await made.refuse(GetProcesses(colonyname=COLONY, **changes), ADA)
        assert (refused.failure.status, refused.failure.code) == (400, "invalid_value")
        assert words in refused.failure.message


@virtual
async def test_a_workflow_that_is_not_there_has_no_members() -> None:
    async with world() as made:
        await made.populate()
        message = GetProcesses(colonyname=COLONY, count=9, state=-1, processgraphid="ab" * 32)
        assert (await made.refuse(message, ADA)).failure.code == "not_found"


@virtual
async def test_lists_are_longer_than_a_page() -> None:
    async with world() as made:
        await made.populate()
        ids = [await run_one(made) for _ in range(230)]
        await run_one(made, label="rare")
        assert await made.list(State.SUCCESS) == (await made.list(State.SUCCESS, count=100))
        rare = (await made.submit("uma", label="seldom")).processid
        await made.assign("ada")
        await made.close("ada", rare)
        for _ in range(205):
            await run_one(made)
        assert await made.list(State.SUCCESS, label="seldom") == [rare]
        found = await made.call(
            GetProcessHistory(colonyname=COLONY, seconds=10**6, state=State.SUCCESS), ADA
        )
        assert [process["processid"] for process in found][:230] == ids


# -- history


@virtual
async def test_history_is_what_was_submitted_lately_oldest_first() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        early = await run_one(made, "none")
        await asyncio.sleep(100)
        middle, late = await run_one(made), await run_one(made)
        await made.close("ada", early)

        async def history(seconds: int, state: State, executor: str = "") -> list[str]:
            message = GetProcessHistory(
                colonyname=COLONY, seconds=seconds, state=state, executorid=executor
            )
            return [process["processid"] for process in await made.call(message, UMA)]

        assert await history(50, State.SUCCESS) == [middle, late]
        assert await history(500, State.SUCCESS) == [made.succeeded, early, middle, late]
        assert await history(500, State.SUCCESS, ADA.id) == await history(500, State.SUCCESS)
        assert await history(500, State.SUCCESS, BEN.id) == []
        assert await history(500, State.FAILED) == [made.failed]
        assert await history(500, State.RUNNING, ADA.id) != []
        assert await history(50, State.RUNNING) == []
        assert await history(500, State.WAITING) == [made.waiting]
        assert await history(-5, State.SUCCESS) == []


@virtual
async def test_history_of_a_state_that_is_none_is_refused() -> None:
    async with world() as made:
        await made.populate()
        message = GetProcessHistory(colonyname=COLONY, seconds=1, state=-1)
        assert (await made.refuse(message, ADA)).failure.code == "invalid_value"


# -- what is submitted


@virtual
async def test_limits_beyond_time_are_no_fault() -> None:
    async with world() as made:
        await made.populate()
        process = await made.submit("uma", maxwaittime=2**63 - 1, maxexectime=2**63 - 1)
        assert from_text(process.waitdeadline) > from_text(process.submissiontime) + CENTURY_NS // 2
        got = await made.assign("ada")
        assert got.processid == process.processid
        assert from_text(got.execdeadline) > from_text(got.starttime) + CENTURY_NS // 2
        await made.close("ada", got.processid)


@virtual
async def test_negative_limits_are_none() -> None:
    async with world() as made:
        await made.populate()
        process = await made.submit("uma", maxwaittime=-(2**63), maxexectime=-(2**63))
        assert from_text(process.waitdeadline) == 0
        assert from_text((await made.assign("ada")).execdeadline) == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"priority": 50_001}, "invalid_value"),
        ({"priority": -50_001}, "invalid_value"),
        ({"cpu": "1.5m"}, "bad_amount"),
        ({"mem": "1Xi"}, "bad_amount"),
        ({"storage": "Gi"}, "bad_amount"),
        ({"executornames": ["e"] * 33}, "invalid_value"),
        ({"env": {str(number): "" for number in range(101)}}, "invalid_value"),
        ({"label": "a\nb"}, "bad_name"),
        ({"funcname": "x" * 1025}, "bad_name"),
        ({"kwargs": msgspec.Raw(b"[]")}, "wrong_type"),
        ({"args": msgspec.Raw(b"{}")}, "wrong_type"),
    ],
)
@virtual
async def test_a_spec_that_makes_no_sense_is_refused_and_not_stored(
    changes: dict[str, Any], code: str
) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        assert (await made.refuse(submit_of(**changes), UMA)).failure.code == code
        assert await made.dump() == before


@virtual
async def test_the_largest_spec_is_kept_whole() -> None:
    async with world() as made:
        await made.populate()
        env = {f"name {number}": "v" * 500 for number in range(100)}
        args = msgspec.json.encode(["ä" * 300_000])
        process = await made.submit("uma", env=env, args=msgspec.Raw(args))
        read = await made.read(process.processid)
        assert bytes(read.spec.args) == args
        assert read.spec.env == env == {each.key: each.value for each in read.attributes}
        await made.call(RemoveProcess(processid=process.processid), UMA)


# -- closing


@virtual
async def test_a_close_that_is_sent_again_is_no_error_and_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made)
        before = await made.dump()
        await made.close("ada", id)
        assert await made.dump() == before


@virtual
async def test_who_closes_what_is_not_there_is_told() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        await made.call(RemoveProcess(processid=made.succeeded), UMA)
        for message in (
            CloseSuccessful(processid=made.succeeded),
            CancelProcess(processid=made.succeeded),
            SetOutput(processid=made.succeeded, out=msgspec.Raw(b"[1]")),
            AddLog(processid=made.succeeded),
        ):
            assert (await made.refuse(message, ADA)).failure.code == "not_found"
        refused = await made.refuse(CloseSuccessful(processid="AB" * 32), ADA)
        assert refused.failure.code == "access_denied"


# -- births in memory


@virtual
async def test_births_read_twice_at_once_are_counted_once() -> None:
    async with MemoryStore() as store:
        births = Births(Writes(store, View()), limit_bytes=10**6)
        one = Submitted(b"x" * 100, "", "")
        births.remember(b"a", one)
        births.remember(b"a", one)
        births.forget(b"a")
        assert births._bytes == 0


@virtual
async def test_births_are_held_up_to_their_limit() -> None:
    async with MemoryStore() as store:
        births = Births(Writes(store, View()), limit_bytes=2000)
        for number in range(10):
            pid = bytes([number])
            births.remember(pid, submitted(pid, FunctionSpec(), "", ""))
            births.known(b"\x00")
        assert births.known(b"\x00") is not None
        assert births.known(b"\x01") is None
        assert births._bytes <= 2000


def _born(text: str) -> tuple[bytes, Birth]:
    pid = bytes(31) + b"\x00"
    message = codec.encode(SubmitFunctionSpec(spec=FunctionSpec(funcname=text)))
    return pid, Birth(
        payload=message, signature=b"", initiator_id="", initiator="", priority_ns=1, submitted_ns=1
    )


@virtual
async def test_births_of_other_nodes_are_heard_and_need_no_read() -> None:
    async with CountingStore() as store:
        store.is_shared = True
        view = View(is_shared=True)
        births = Births(Writes(store, view), limit_bytes=10_000)
        pid, born = _born("f")
        view.watched(Event(1, (Change(keys.birth(pid), encode(born)),)))
        found = await births.of(pid)
        assert found is not None
        assert b'"f"' in found.spec
        assert store.asked == []
        view.watched(Event(2, (Change(keys.birth(pid), None),)))
        births.forget(pid)
        assert await births.of(pid) is None
        assert births._heard_bytes == births._bytes == 0


@virtual
async def test_heard_births_take_no_more_than_their_part() -> None:
    async with MemoryStore() as store:
        store.is_shared = True
        view = View(is_shared=True)
        births = Births(Writes(store, view), limit_bytes=8_000)
        for number in range(50):
            pid = number.to_bytes(28, "big") + bytes(4)
            view.watched(Event(number + 1, (Change(keys.birth(pid), b"x" * 100),)))
        assert births._heard_bytes <= 2_000
        assert len(births._heard) == 4
