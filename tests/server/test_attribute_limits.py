"""How many attributes a process may have set, of how many bytes; and what is shown of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_core.limits import Limits
from colonist_core.process import Cause
from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.process import GetProcess
from colonist_server.repo import budget
from colonist_server.repo.records import AttributeRecord
from tests.server.people import World, world
from tests.support.attempts import take, told
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.memory_store import MemoryStore
from tests.support.rooms import Refused, key, settle

ADA, UMA = key("ada"), key("uma")


def limits(**changes: int) -> dict[str, Any]:
    return {"limits": Limits(**changes)}


def attribute(process: str, name: str, value: str = "v") -> AddAttribute:
    wanted = Attribute(targetid=process, attributetype=AttributeType.OUT, key=name, value=value)
    return AddAttribute(attribute=wanted)


async def running(made: World) -> str:
    await made.found("ada")
    await made.enrol("uma")
    await made.submit("uma")
    return (await made.assign("ada")).processid


async def tried(made: World, process: str, name: str, value: str = "v") -> bool:
    """Whether the attribute was set; if not, a limit was named."""
    try:
        await made.call(attribute(process, name, value), ADA)
    except Refused as refused:
        failure = refused.failure
        assert (failure.status, failure.code) == (413, "too_large")
        assert "limit process_attribute" in failure.message
        return False
    return True


async def shown(made: World, process: str) -> dict[str, str]:
    found = await made.call(GetProcess(processid=process), UMA)
    return {each["key"]: each["value"] for each in found["attributes"]}


@virtual
async def test_a_process_has_so_many_attributes_also_of_many_at_once() -> None:
    async with world(**limits(process_attributes=5)) as made:
        id = await running(made)
        done = await asyncio.gather(*(tried(made, id, f"k{n}") for n in range(20)))
        assert sum(done) == 5
        assert len(await shown(made, id)) == 5
        name = next(iter(await shown(made, id)))
        assert await tried(made, id, name, "other")  # those it has are set again
        assert (await shown(made, id))[name] == "other"


@virtual
async def test_the_attributes_of_a_process_have_so_many_bytes() -> None:
    async with world(**limits(process_attribute_bytes=1_000)) as made:
        id = await running(made)
        assert await tried(made, id, "a", "x" * 600)
        assert not await tried(made, id, "b", "x" * 600)
        assert not await tried(made, id, "a", "x" * 1_000)
        assert await tried(made, id, "a", "x" * 100)
        assert await tried(made, id, "b", "x" * 600)


@virtual
async def test_sealed_attributes_are_counted_as_well() -> None:
    async with world(**limits(process_attributes=2)) as made:
        await made.found("ada")
        await made.submit("ada")
        held = await take(made, "ada")
        for name in "ab":
            reply = await held.say(attribute(held.process, name), 7)
            assert reply["key"] == name
        assert await held.say(attribute(held.process, "c"), 8) == "too_large"
        late = held.sealed(attribute(held.process, "a", "of before"), 6)
        assert (await told(made, late))["value"] == "v"  # what came later stands
        assert (await held.say(attribute(held.process, "a", "anew"), 9))["value"] == "anew"


@virtual
async def test_what_was_set_before_a_restart_counts() -> None:
    async with MemoryStore() as store:
        async with world(store, **limits(process_attributes=50)) as made:
            id = await running(made)
            assert all([await tried(made, id, f"k{n}") for n in range(30)])
        async with world(store, **limits(process_attributes=31)) as made:
            assert await tried(made, id, "more")
            assert not await tried(made, id, "too many")
        async with world(store, **limits(process_attributes=3)) as made:  # fewer than there are
            assert not await tried(made, id, "too many")
            assert await tried(made, id, "k3", "anew")
        async with world(store, **limits(process_attribute_bytes=60)) as made:
            assert not await tried(made, id, "k3", "anew and longer")
            assert await tried(made, id, "k3", "-")


@virtual
async def test_an_attribute_whose_caller_left_counts_if_it_was_set() -> None:
    async with world(**limits(process_attributes=1)) as made:
        id = await running(made)
        store: Any = made.rooms.writes.store
        commit, begun, gate = store.commit, asyncio.Event(), asyncio.Event()

        async def slow(*wanted: Any) -> Any:
            begun.set()
            result = await commit(*wanted)
            await gate.wait()
            return result

        store.commit = slow
        row = made.rooms.view.rows[bytes.fromhex(id)]
        record = AttributeRecord(AttributeType.OUT, "k", "v")
        task = asyncio.create_task(made.rooms.journal.set_attribute(row, record, Cause(ADA.id)))
        await begun.wait()
        await settle()
        task.cancel()
        store.commit = commit
        gate.set()
        await settle()
        assert not await tried(made, id, "another")


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_no_more_of_them_is_read_than_a_reply_holds(
    is_archived: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "REPLY_BYTES", 100_000)
    archive = MemoryArchive() if is_archived else None
    async with world(archive=archive) as made:
        id = await running(made)
        for number in range(60):
            assert await tried(made, id, f"k{number}", "x" * 10_000)
        if is_archived:
            await made.close("ada", id)
            await asyncio.sleep(400)
            await settle()
            assert archive is not None
            assert archive.rows
        assert len(await shown(made, id)) == 9


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_all_of_many_small_ones_are_shown(is_archived: bool) -> None:
    archive = MemoryArchive() if is_archived else None
    async with world(archive=archive) as made:
        id = await running(made)
        for number in range(250):
            assert await tried(made, id, f"k{number}", f"{number}")
        if is_archived:
            await made.close("ada", id)
            await asyncio.sleep(400)
            await settle()
        assert await shown(made, id) == {f"k{n}": f"{n}" for n in range(250)}
