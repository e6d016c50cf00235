"""How many functions an executor and a colony may have announced; what is listed of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_protocol.executor import RemoveExecutor
from colonist_protocol.function import (
    AddFunction,
    Function,
    FunctionArgument,
    GetFunctions,
    RemoveFunction,
)
from colonist_server.repo import budget, functions
from tests.server.people import World, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, key

ADA, BEN = key("ada"), key("ben")


def function(name: str, by: str = "ada", **changes: Any) -> AddFunction:
    return AddFunction(
        function=Function(executorname=by, colonyname=COLONY, funcname=name, **changes)
    )


async def tried(made: World, message: AddFunction) -> str:
    """ "" if the function was announced, else the code of the refusal."""
    try:
        await made.call(message, key(message.function.executorname))
    except Refused as refused:
        assert "remove some" in refused.failure.message
        return refused.failure.code
    return ""


def check_counts(made: World) -> None:
    """What is counted is what is there."""
    found = list(made.colony.functions.values())
    assert made.colony.announced.count == len(found)
    assert made.colony.announced.size == sum(each.size for each in found)
    by = {each.record.executor for each in found}
    assert set(made.colony.announced_by) == by
    rooms: Any = made.rooms
    assert rooms.functions._coming == {}


@virtual
async def test_an_executor_announces_so_many_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MAX_FUNCTIONS", 5)
    async with world() as made:
        await made.found("ada", "ben")
        told = await asyncio.gather(*(tried(made, function(f"f{n}")) for n in range(12)))
        assert sorted(told) == [""] * 5 + ["too_large"] * 7
        assert await tried(made, function("f", "ben")) == ""
        [first, *_] = await made.call(GetFunctions(colonyname=COLONY, executorname="ada"), ADA)
        assert await tried(made, function(first["funcname"], description="again")) == ""
        await made.call(RemoveFunction(functionid=first["functionid"]), ADA)
        check_counts(made)
        assert await tried(made, function("g")) == ""
        assert await tried(made, function("h")) == "too_large"
        await made.call(RemoveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert made.colony.announced.count == 1
        check_counts(made)


@virtual
async def test_the_functions_of_an_executor_take_so_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(functions, "MAX_FUNCTION_BYTES", 10_000)
    async with world() as made:
        await made.found("ada", "ben")
        assert await tried(made, function("a", description="x" * 6_000)) == ""
        assert await tried(made, function("b", description="x" * 6_000)) == "too_large"
        assert await tried(made, function("a", description="x" * 11_000)) == "too_large"
        assert await tried(made, function("b", "ben", description="x" * 6_000)) == ""
        small = [FunctionArgument() for _ in range(25)]
        assert await tried(made, function("c", args=small)) == "too_large"
        wide = "\N{GRINNING FACE}" + "x" * 1_000  # four bytes a character, whatever it weighs
        assert await tried(made, function("c", description=wide)) == "too_large"
        assert await tried(made, function("a", description="x")) == ""
        assert await tried(made, function("c", description=wide)) == ""
        check_counts(made)


@virtual
async def test_the_functions_of_a_colony_take_so_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(functions, "MAX_ALL_FUNCTION_BYTES", 10_000)
    async with MemoryStore() as store:
        async with world(store) as made:
            await made.found("ada", "ben")
            said = (
                function("a", description="x" * 6_000),
                function("b", "ben", description="x" * 6_000),
            )
            told = await asyncio.gather(*(tried(made, each) for each in said))
            assert sorted(told) == ["", "busy"]
            check_counts(made)
        async with world(store) as made:
            check_counts(made)
            assert await tried(made, function("c", description="x" * 5_000)) == "busy"
            assert await tried(made, function("c", description="x" * 2_000)) == ""


@virtual
async def test_no_more_functions_are_listed_than_a_reply_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "REPLY_BYTES", 50_000)
    async with world() as made:
        await made.found("ada")
        for number in range(10):
            assert await tried(made, function(f"f{number}", description="x" * 9_000)) == ""
        assert len(await made.call(GetFunctions(colonyname=COLONY), ADA)) == 5
