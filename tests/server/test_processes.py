"""Processes as members see them: lists, filters, outputs, attributes, removal, restarts."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest

from colonist_protocol.attribute import AttributeType, GetAttribute, attribute_id
from colonist_protocol.colony import RemoveColony
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs, SearchLogs
from colonist_protocol.process import (
    AssignProcess,
    CancelProcess,
    CloseFailed,
    CloseSuccessful,
    GetProcess,
    GetProcesses,
    GetProcessHistory,
    RemoveAllProcesses,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_protocol.times import from_text
from colonist_server.repo.births import Births, Submitted, submitted
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes
from tests.server.people import World, attribute_of, crashing, out_of, submit_of, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")
CENTURY_NS = 100 * 366 * 86_400 * 10**9


async def _run(made: World, outcome: str = "success", **changes: Any) -> str:
    """One process from its submission to its end."""
    id = (await made.submit("uma", **{"priority": 1, **changes})).processid
    assert (await made.assign("ada")).processid == id
    if outcome == "success":
        await made.close("ada", id)
    elif outcome == "failed":
        await made.call(CloseFailed(processid=id, errors=["e"]), ADA)
    elif outcome == "cancelled":
        await made.call(CancelProcess(processid=id), UMA)
    return id


# -- lists


@virtual
async def test_lists_are_in_the_order_of_the_protocol() -> None:
    async with world() as made:
        await made.populate()
        ended = {State.SUCCESS: [], State.FAILED: [], State.CANCELLED: []}
        outcomes = {"success": State.SUCCESS, "failed": State.FAILED, "cancelled": State.CANCELLED}
        for outcome in [*outcomes, *outcomes]:
            await asyncio.sleep(1)
            ended[outcomes[outcome]].insert(0, await _run(made, outcome))
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
        ids = [await _run(made) for _ in range(230)]
        await _run(made, label="rare")
        assert await made.list(State.SUCCESS) == (await made.list(State.SUCCESS, count=100))
        rare = (await made.submit("uma", label="seldom")).processid
        await made.assign("ada")
        await made.close("ada", rare)
        for _ in range(205):
            await _run(made)
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
        early = await _run(made, "none")
        await asyncio.sleep(100)
        middle, late = await _run(made), await _run(made)
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


# -- output


@virtual
async def test_an_output_is_replaced_and_an_empty_one_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        for out, seen in [
            (b'["a"]', ["a"]),
            (b'[{"b":null}]', [{"b": None}]),
            (b"[]", [{"b": None}]),
            (b"null", [{"b": None}]),
        ]:
            await made.call(SetOutput(processid=id, out=msgspec.Raw(out)), ADA)
            assert out_of(await made.read(id)) == seen
        await made.close("ada", id, b"[ ]")
        assert out_of(await made.read(id)) == [{"b": None}]
        assert (await made.list(State.SUCCESS)) == [id]


@virtual
async def test_the_result_takes_the_place_of_the_output() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[1]")), ADA)
        await made.close("ada", id, b"[2.50]")
        assert bytes((await made.read(id)).out) == b"[2.50]"


@virtual
async def test_an_output_is_kept_by_who_fails_and_over_attempts() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none", maxexectime=5, maxretries=1)
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b'["half"]')), ADA)
        again = await made.assign("ben", timeout=60)
        assert (again.processid, out_of(again), again.retries) == (id, ["half"], 1)
        await made.call(CloseFailed(processid=id, errors=["e"]), BEN)
        assert out_of(await made.read(id)) == ["half"]


@virtual
async def test_output_of_what_does_not_run_is_refused() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for id in (made.waiting, made.succeeded, made.failed, made.cancelled):
            refused = await made.refuse(SetOutput(processid=id, out=msgspec.Raw(b"[9]")), ADA)
            assert refused.failure.code == "conflict"
            assert out_of(await made.read(id)) != [9]


@virtual
async def test_many_long_errors_are_kept_whole() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        errors = ["x" * 7000] * 100
        await made.call(CloseFailed(processid=id, errors=errors), ADA)
        assert (await made.read(id)).errors == errors
        assert await made.list(State.FAILED) == [id]


@virtual
async def test_too_many_errors_are_refused() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        refused = await made.refuse(CloseFailed(processid=id, errors=["e"] * 101), ADA)
        assert refused.failure.code == "invalid_value"


# -- attributes and logs


@virtual
async def test_an_attribute_over_an_env_entry_stands_once() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none", env={"E": "1", "F": "2"})
        message = attribute_of(id, "E", "new")
        changed = msgspec.structs.replace(message.attribute, attributetype=AttributeType.ENV)
        await made.call(msgspec.structs.replace(message, attribute=changed), ADA)
        shown = {each.key: each.value for each in (await made.read(id)).attributes}
        assert shown == {"E": "new", "F": "2"}
        assert len((await made.read(id)).attributes) == 2
        one = await made.call(
            GetAttribute(attributeid=attribute_id(id, "E", AttributeType.ENV)), UMA
        )
        assert one["value"] == "new"


@virtual
async def test_attributes_follow_the_state_and_are_found_by_id() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none", env={"E": "1"})
        await made.call(attribute_of(id), ADA)
        await made.close("ada", id)
        attributes = (await made.read(id)).attributes
        assert [(each.key, each.state) for each in attributes] == [("E", 2), ("k", 2)]
        for each in attributes:
            found = await made.call(GetAttribute(attributeid=each.attributeid), UMA)
            assert (found["key"], found["targetcolonyname"], found["state"]) == (
                each.key,
                COLONY,
                2,
            )


@pytest.mark.parametrize("id", ["", "x", "ab" * 32, "AB" * 32])
@virtual
async def test_an_attribute_that_is_not_there_is_not_found(id: str) -> None:
    async with world() as made:
        await made.populate()
        assert (await made.refuse(GetAttribute(attributeid=id), UMA)).failure.code == "not_found"


@pytest.mark.parametrize("name", ["", "x" * 1025])
@virtual
async def test_an_attribute_without_a_sensible_key_is_refused(name: str) -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        refused = await made.refuse(attribute_of(id, name), ADA)
        assert refused.failure.code == "invalid_value"


@virtual
async def test_what_was_written_before_a_restart_is_read_after_it() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            id = await _run(made, "none")
            await made.call(attribute_of(id), ADA)
            await made.call(SetOutput(processid=id, out=msgspec.Raw(b'["half"]')), ADA)
        async with world(store) as made:
            process = await made.read(id)
            assert out_of(process) == ["half"]
            assert [each.key for each in process.attributes] == ["k"]
            await made.close("ada", id, b"[]")
            process = await made.read(id)
            assert out_of(process) == ["half"]
            assert [each.key for each in process.attributes] == ["k"]


@virtual
async def test_a_line_too_long_to_keep_is_refused_as_such() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        refused = await made.refuse(AddLog(processid=id, message="x" * 700_000), ADA)
        assert (refused.failure.status, refused.failure.code) == (413, "too_large")
        await made.call(AddLog(processid=id, message="x" * 200_000), ADA)


@virtual
async def test_lines_are_read_over_attempts_in_order() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none", maxexectime=5, maxretries=3)
        for number in range(2):
            await made.call(AddLog(processid=id, message=f"ada {number}"), ADA)
        await made.assign("ben", timeout=60)
        for number in range(2):
            await made.call(AddLog(processid=id, message=f"ben {number}"), BEN)

        async def lines(**wanted: Any) -> list[str]:
            message = GetLogs(colonyname=COLONY, **{"processid": id, "count": 500, **wanted})
            found = await made.call(message, UMA)
            assert [each["timestamp"] for each in found] == sorted(
                each["timestamp"] for each in found
            )
            return [each["message"] for each in found]

        everything = ["ada 0", "ada 1", "ben 0", "ben 1"]
        assert await lines() == await lines(since=-1) == everything
        assert await lines(count=3) == everything[:3]
        assert await lines(count=3, latest=True) == everything[1:]
        assert await lines(count=0) == await lines(count=-1) == []
        assert await lines(executorname="ben", processid="") == everything[2:]
        stamps = await made.call(GetLogs(colonyname=COLONY, processid=id, count=9), UMA)
        for number, each in enumerate(stamps):
            assert await lines(since=each["timestamp"]) == everything[number + 1 :]
            assert await lines(since=each["timestamp"], latest=True) == everything[number + 1 :]
        assert await lines(since=2**63 - 1) == []


@virtual
async def test_a_search_looks_at_the_last_days() -> None:
    async with world(stale_s=0.0) as made:
        await made.populate()
        for name in ("old", "new"):
            await made.call(
                AddExecutorLog(colonyname=COLONY, executorname="ada", message=f"{name} line"), ADA
            )
            await asyncio.sleep(3 * 86_400)

        async def found(text: str, days: int, count: int = 100) -> list[str]:
            message = SearchLogs(colonyname=COLONY, text=text, days=days, count=count)
            return [line["message"] for line in await made.call(message, UMA)]

        assert await found("line", 30) == ["old line", "new line"]
        assert await found("line", 4) == ["new line"]
        assert await found("line", 1) == await found("line", 0) == []
        assert await found("old", 30) == ["old line"]
        assert await found("LINE", 30) == []
        assert len(await found("line", 30, 1)) == 1
        assert await found("line", 30, 0) == await found("line", 30, -1) == []


@virtual
async def test_a_line_is_found_once_though_it_stands_twice() -> None:
    async with world() as made:
        await made.populate()
        id = await _run(made, "none")
        await made.call(AddLog(processid=id, message="m"), ADA)
        message = SearchLogs(colonyname=COLONY, text="m", days=1, count=100)
        assert [line["processid"] for line in await made.call(message, UMA)] == [id]


# -- removal


@virtual
async def test_a_refused_removal_takes_nothing_away() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        before = await made.dump()
        refused = await made.refuse(RemoveProcess(processid=made.running), UMA)
        assert (refused.failure.code, refused.failure.status) == ("conflict", 409)
        assert "cannot remove a running process" in refused.failure.message
        assert await made.dump() == before
        assert [each.key for each in (await made.read(made.running)).attributes] == ["k"]


@pytest.mark.parametrize("outcome", ["success", "failed", "cancelled", "back"])
@virtual
async def test_a_removed_process_leaves_its_log_only(outcome: str) -> None:
    async with world() as made:
        await made.populate()
        before = await made.dump()
        id = await _run(made, "none", env={"E": "1"}, maxexectime=5, maxretries=9)
        for number in range(130):
            await made.call(attribute_of(id, f"k{number}"), ADA)
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[1]")), ADA)
        await made.call(AddLog(processid=id, message="m"), ADA)
        if outcome == "success":
            await made.close("ada", id)
        elif outcome == "failed":
            await made.call(CloseFailed(processid=id), ADA)
        elif outcome == "cancelled":
            await made.call(CancelProcess(processid=id), UMA)
        else:
            await asyncio.sleep(6)
        await made.call(RemoveProcess(processid=id), UMA)
        left = {name: value for name, value in (await made.dump()).items() if name not in before}
        assert {name[:2] for name in left} == {b"l/"}
        assert (await made.refuse(GetProcess(processid=id), UMA)).failure.code == "not_found"
        assert (await made.refuse(RemoveProcess(processid=id), UMA)).failure.code == "not_found"
        logs = GetLogs(colonyname=COLONY, executorname="ada", count=9)
        assert [line["message"] for line in await made.call(logs, UMA)] == ["m"]


@pytest.mark.parametrize("state", [-1, State.WAITING, State.SUCCESS, State.FAILED, State.CANCELLED])
@virtual
async def test_all_in_a_state_are_removed_and_no_other(state: int) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for _ in range(120):
            await _run(made) if state == State.SUCCESS else await made.submit("uma")
        kept = {each: await made.list(each) for each in State}
        await made.call(RemoveAllProcesses(colonyname=COLONY, state=state), COLONY_OWNER)
        await settle()
        for each in State:
            is_gone = state in (each, -1) and each is not State.RUNNING
            assert await made.list(each) == ([] if is_gone else kept[each])
        await _expect_recount(made)


@pytest.mark.parametrize("state", [1, 5, -2])
@virtual
async def test_running_and_unknown_states_are_not_removed(state: int) -> None:
    async with world() as made:
        await made.populate()
        message = RemoveAllProcesses(colonyname=COLONY, state=state)
        assert (await made.refuse(message, COLONY_OWNER)).failure.code == "invalid_value"


@virtual
async def test_a_process_that_is_being_assigned_is_not_removed_under_its_executor() -> None:
    async with world() as made:
        await made.populate()
        for _ in range(20):
            id = (await made.submit("uma")).processid
            removal = made.answer(RemoveProcess(processid=id), UMA)
            assign = made.answer(AssignProcess(colonyname=COLONY, timeout=-1), ADA)
            removed, assigned = await asyncio.gather(removal, assign)
            assert (removed.status, assigned.status) in [(200, 404), (409, 200)]


# -- statistics


@virtual
async def test_statistics_equal_a_recount_whatever_happened() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            await made.employ()
            for outcome in ("success", "failed", "cancelled", "none", "success"):
                await _run(made, outcome)
                await _expect_recount(made)
            await _run(made, "none", maxexectime=1)
            await made.submit("uma", maxwaittime=1)
            await asyncio.sleep(3)
            await _expect_recount(made)
            await made.call(RemoveProcess(processid=made.succeeded), UMA)
            await _expect_recount(made)
            before = await made.statistics()
        async with world(store) as made:
            assert await made.statistics() == before
            await _expect_recount(made)


async def _expect_recount(made: World) -> None:
    statistics = await made.statistics()
    names = ("waiting", "running", "successful", "failed", "cancelled")
    for state, name in zip(State, names, strict=True):
        assert min(statistics[f"{name}processes"], 100) == len(await made.list(state)), name


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
        id = await _run(made)
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


# -- the end of a colony


@virtual
async def test_a_removed_colony_leaves_nothing() -> None:
    async with world() as made:
        before = await made.dump()
        await made.populate()
        await made.employ()
        for _ in range(70):
            await made.submit("uma", env={"E": "1"})
        for number in range(130):
            await made.call(attribute_of(made.running, f"k{number}"), ADA)
        for name in range(70):
            await made.add(f"x{name}")
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.call(RemoveColony(colonyname="other"), OWNER)
        await settle()
        assert await made.dump() == before
        assert not made.rooms.view.rows


@virtual
async def test_presence_of_a_removed_colony_is_forgotten() -> None:
    async with world(presence_every_s=60.0) as made:
        await made.populate()
        await made.employ()
        await asyncio.sleep(61)
        assert any(b"ada" in value for value in (await made.dump()).values())
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await made.call(RemoveColony(colonyname="other"), OWNER)
        await asyncio.sleep(61)
        assert not any(b"ada" in value for value in (await made.dump()).values())


@pytest.mark.parametrize("is_swept_late", [False, True])
@virtual
async def test_a_colony_made_anew_meets_nothing_old(is_swept_late: bool) -> None:
    async with MemoryStore() as store:
        async with crashing(store) as made:
            await made.populate()
            await made.employ()
            old = made.running
            await made.call(RemoveColony(colonyname=COLONY), OWNER)
            if is_swept_late:
                await settle(1)
        async with world(store) as made:
            await made.found("ada")
            await settle()
            assert (await made.statistics()) | {"executors": 0, "activeexecutors": 0} == {
                name: int(name == "colonies") for name in await made.statistics()
            }
            for state in State:
                assert await made.list(state) == []
            refused = await made.refuse(GetProcess(processid=old), ADA)
            assert refused.failure.code == "access_denied"
            refused = await made.refuse(
                GetLogs(colonyname=COLONY, executorname="ben", count=1), ADA
            )
            assert refused.failure.code == "not_found"
            with pytest.raises(AssertionError):
                await made.refuse(GetLogs(colonyname=COLONY, executorname="ada", count=1), ADA)
