"""What stands beside a process: its output, errors, attributes and lines of the log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from colonist_protocol.attribute import AttributeType, GetAttribute, attribute_id
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs, SearchLogs
from colonist_protocol.process import (
    CloseFailed,
    SetOutput,
    State,
)
from tests.server.people import attribute_of, out_of, run_one, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, key

ADA, BEN, UMA = key("ada"), key("ben"), key("uma")


# -- output


@virtual
async def test_an_output_is_replaced_and_an_empty_one_changes_nothing() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made, "none")
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
        id = await run_one(made, "none")
        await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[1]")), ADA)
        await made.close("ada", id, b"[2.50]")
        assert bytes((await made.read(id)).out) == b"[2.50]"


@virtual
async def test_an_output_is_kept_by_who_fails_and_over_attempts() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made, "none", maxexectime=5, maxretries=1)
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
        id = await run_one(made, "none")
        errors = ["x" * 7000] * 100
        await made.call(CloseFailed(processid=id, errors=errors), ADA)
        assert (await made.read(id)).errors == errors
        assert await made.list(State.FAILED) == [id]


@virtual
async def test_too_many_errors_are_refused() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made, "none")
        refused = await made.refuse(CloseFailed(processid=id, errors=["e"] * 101), ADA)
        assert refused.failure.code == "invalid_value"


# -- attributes and logs


@virtual
async def test_an_attribute_over_an_env_entry_stands_once() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made, "none", env={"E": "1", "F": "2"})
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
        id = await run_one(made, "none", env={"E": "1"})
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
        id = await run_one(made, "none")
        refused = await made.refuse(attribute_of(id, name), ADA)
        assert refused.failure.code == "invalid_value"


@virtual
async def test_what_was_written_before_a_restart_is_read_after_it() -> None:
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.populate()
            id = await run_one(made, "none")
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
        id = await run_one(made, "none")
        refused = await made.refuse(AddLog(processid=id, message="x" * 700_000), ADA)
        assert (refused.failure.status, refused.failure.code) == (413, "too_large")
        await made.call(AddLog(processid=id, message="x" * 200_000), ADA)


@virtual
async def test_lines_are_read_over_attempts_in_order() -> None:
    async with world() as made:
        await made.populate()
        id = await run_one(made, "none", maxexectime=5, maxretries=3)
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
        assert await lines(count=0) == []
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
        id = await run_one(made, "none")
        await made.call(AddLog(processid=id, message="m"), ADA)
        message = SearchLogs(colonyname=COLONY, text="m", days=1, count=100)
        assert [line["processid"] for line in await made.call(message, UMA)] == [id]
