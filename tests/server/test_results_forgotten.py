"""Results that come for processes which are gone: stored once at most, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_protocol.process import RemoveProcess
from colonist_server.repo import keys
from tests.server.history import historic
from tests.server.people import World
from tests.support.attempts import Held, take
from tests.support.clock import virtual
from tests.support.memory_archive import MemoryArchive
from tests.support.rooms import key

AGE_S = 3_600.0
HALF_AN_HOUR_S = 1_800


async def begin(made: World) -> Held:
    await made.found("ada")
    await made.enrol("uma")
    await made.submit("uma")
    return await take(made, "ada")


async def go_by(made: World, hours: int) -> None:
    """Processes come and go, so that there are checkpoints."""
    for _ in range(hours * 2):
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        await made.close("ada", id)
        await asyncio.sleep(HALF_AN_HOUR_S)


def of_another_grant(made: World, like: Held, number: int = 7) -> Held:
    """An attempt that a restored store has forgotten."""
    current = made.rooms.server_keys.current
    token = current.attempt_token(like.process, like.identity.id, number, "ab" * 8)
    return like._replace(token=token)


def of_another_process(made: World, like: Held) -> Held:
    """An attempt at a process born in the same minute that a restored store has forgotten."""
    current = made.rooms.server_keys.current
    pid = keys.process_id(made.colony.tag, keys.born_ns(bytes.fromhex(like.process)), b"x" * 20)
    token = current.attempt_token(pid.hex(), like.identity.id, 1, "cd" * 8)
    return like._replace(process=pid.hex(), token=token)


def results(made: World, archive: MemoryArchive | None = None) -> int:
    store: Any = made.rooms.writes.store
    stored = [*store._items, *(archive.rows if archive is not None else ())]
    return len([each for each in stored if each.startswith(keys.RESULT)])


@pytest.mark.parametrize("is_archived", [False, True])
@virtual
async def test_a_result_is_told_as_long_as_anything_is_known_and_never_stored_again(
    is_archived: bool,
) -> None:
    archive = MemoryArchive() if is_archived else None
    async with historic(archive, retention_age_s=AGE_S) as made:
        held = await begin(made)
        other, unknown = of_another_grant(made, held), of_another_process(made, held)
        everyone = (held, other, unknown)
        assert [await each.succeed() for each in everyone] == ["counted", "recorded", "recorded"]
        await go_by(made, 2)
        assert await made.rooms.writes.past.read(keys.closed(bytes.fromhex(held.process))) is None
        assert await held.succeed() == "counted"
        for _ in range(2):
            assert await other.succeed() == "recorded"
            assert await unknown.succeed() == "recorded"
        assert results(made, archive) == 2
        await go_by(made, 10)
        assert results(made, archive) == 0
        count = made.rooms.trail.head(made.colony.tag).count
        assert [await each.succeed() for each in everyone] == ["too_old"] * 3
        assert [await each.fail() for each in everyone] == ["too_old"] * 3
        assert results(made, archive) == 0
        assert made.rooms.trail.head(made.colony.tag).count == count
        await go_by(made, 1)
        young = await take_one(made)
        assert await of_another_process(made, young).succeed() == "recorded"
        assert await of_another_process(made, young).succeed() == "recorded"
        assert results(made, archive) == 1


async def take_one(made: World) -> Held:
    await made.submit("uma")
    return await take(made, "ada")


@virtual
async def test_without_retention_a_result_is_recorded_however_old() -> None:
    async with historic(None) as made:
        held = await begin(made)
        await go_by(made, 12)
        unknown = of_another_process(made, held)
        assert await unknown.succeed() == "recorded"
        await go_by(made, 2)
        assert await unknown.succeed() == "recorded"
        assert results(made) == 1


@virtual
async def test_an_old_process_keeps_its_results_as_long_as_it_is_known() -> None:
    async with historic(None, retention_age_s=AGE_S) as made:
        held = await begin(made)
        other = of_another_grant(made, held)
        assert await other.fail() == "recorded"
        await go_by(made, 10)
        assert results(made) == 1
        assert await other.fail() == "recorded"
        assert await held.succeed() == "counted"
        assert await other.fail() == "recorded"
        await made.call(RemoveProcess(processid=held.process), key("uma"))
        for _ in range(2):
            assert await held.succeed() == "counted"
            assert await other.fail() == "recorded"
        assert results(made) == 1
        await go_by(made, 10)
        assert results(made) == 0
        assert await other.fail() == "too_old"
