"""What many events cost is borne by those who ordered them, and by nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_core.limits import Rate
from colonist_protocol import envelope
from colonist_protocol.envelope import Failure
from colonist_protocol.subscription import SubscribeProcesses
from colonist_server.repo import backlog, delivery
from colonist_server.repo import subscriptions as hub
from colonist_server.repo.topics import Ending
from colonist_server.rpc.dispatch import Refusal
from tests.server.following import Ear, stream, subscribe
from tests.server.people import OTHER, World, world
from tests.server.test_sealed_subscriptions import ALL, KEYS, code, names, order, peopled, present
from tests.support.clock import virtual
from tests.support.rooms import key, settle
from tests.support.sealing import Sealed


async def sealed(made: World, who: str = "uma") -> tuple[Sealed, Ear]:
    sent = order(made, who=who)
    ear, refused = await present(made, sent)
    assert refused is None
    return sent, ear


@virtual
async def test_a_caller_has_fewer_sealed_subscriptions_than_plain_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub, "MAX_SEALED_OF_CALLER", 3)
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        ears = [(await sealed(made))[1] for _ in range(3)]
        for _ in range(4):
            await stream(made)
        one_more = order(made)
        assert code(one_more, (await present(made, one_more))[1]) == "busy"
        await sealed(made, "ada")
        assert ears[0].subscription is not None
        for _ in range(2):
            made.rooms.subscriptions.cancel(ears[0].subscription)
        assert (await present(made, one_more))[1] is None  # refused, it was not taken
        one_more = order(made)
        assert code(one_more, (await present(made, one_more))[1]) == "busy"


@virtual
async def test_a_caller_has_so_many_sealed_events_in_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "SEALED_RATE", Rate(per_s=1, burst=12))
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        mine = [await sealed(made) for _ in range(4)]
        other, plain = await sealed(made, "ada"), await stream(made)
        for _ in range(5):
            await made.submit("uma")
            await settle()
        assert sum(len(ear.frames) for _, ear in mine) <= 13  # a second may have passed
        assert [len(names(*each)) for each in mine] == [len(ear.frames) for _, ear in mine]
        endings = [ear.endings for _, ear in mine]
        assert endings.count([Ending.TOO_MANY]) >= 2
        assert (len(names(*other)), other[1].endings) == (5, [])
        assert (len(plain.frames), plain.endings) == (5, [])
        await asyncio.sleep(20)
        sent, ear = await sealed(made)
        await made.submit("uma")
        await settle()
        assert len(names(sent, ear)) == 1


@virtual
async def test_a_large_sealed_event_counts_as_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SEALED_RATE", Rate(per_s=1, burst=12))
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        _, ear = await sealed(made)
        for _ in range(3):
            await made.submit("uma", args=["x" * 100_000])
            await settle()
        assert (len(ear.frames), ear.endings) == (1, [Ending.TOO_MANY])


class Gate:
    """Nothing is rendered until it opens."""

    def __init__(self, made: World, patch: pytest.MonkeyPatch) -> None:
        self._event = asyncio.Event()
        listing = type(made.rooms.listing)
        original = listing.of_moments

        async def slow(this: Any, wanted: Any) -> Any:
            await self._event.wait()
            return await original(this, wanted)

        patch.setattr(listing, "of_moments", slow)

    async def open(self) -> None:
        self._event.set()
        await settle(2_000)


async def elsewhere(made: World) -> Ear:
    """A stream of the other colony."""
    message = SubscribeProcesses(colonyname=OTHER, executortype="", state=-1, timeout=900)
    ear = await subscribe(made, message, key("ulf"))
    assert isinstance(ear, Ear)
    return ear


async def submit_elsewhere(made: World, count: int) -> None:
    for _ in range(count):
        await made.submit("ulf", colonyname=OTHER)


@virtual
async def test_only_the_colony_that_causes_the_backlog_misses_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "MAX_PENDING", 10)
    async with world() as made:
        await made.populate()
        mine, others = await stream(made), await elsewhere(made)
        gate = Gate(made, monkeypatch)
        await submit_elsewhere(made, 3)
        for _ in range(20):
            await made.submit("uma")
        await submit_elsewhere(made, 3)
        await settle()
        assert len(made.rooms.subscriptions._delivery.backlog) < 12
        await gate.open()
        assert mine.endings == [Ending.BEHIND]
        assert (len(others.frames), others.endings) == (6, [])
        await made.submit("uma")
        await settle()
        assert mine.frames == []


@virtual
async def test_colonies_are_served_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as made:
        await made.populate()
        mine, others = await stream(made), await elsewhere(made)
        gate = Gate(made, monkeypatch)
        for _ in range(200):
            await made.submit("uma")
        before: list[int] = []
        monkeypatch.setattr(others, "deliver", lambda _: before.append(len(mine.frames)))
        await submit_elsewhere(made, 1)
        await settle()
        await gate.open()
        assert len(mine.frames) == 200
        assert before[0] <= 2 * backlog.BATCH


@virtual
async def test_where_many_follow_a_turn_is_few_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BATCH_SINKS", 16)
    async with world() as made:
        await made.populate()
        mine, others = [await stream(made) for _ in range(8)], await elsewhere(made)
        gate = Gate(made, monkeypatch)
        for _ in range(30):
            await made.submit("uma")
        before: list[int] = []
        monkeypatch.setattr(others, "deliver", lambda _: before.append(len(mine[0].frames)))
        await submit_elsewhere(made, 1)
        await settle()
        await gate.open()
        assert [len(ear.frames) for ear in mine] == [30] * 8
        assert before[0] <= 4


@virtual
async def test_whoever_is_removed_while_an_order_is_written_down_follows_nothing() -> None:
    async with world(server_keys=KEYS) as made:
        await peopled(made)
        sent = order(made, ALL)
        ear = Ear()

        def admit(who: str) -> None:
            del made.colony.members[who]

        refused = await made.dispatch.subscribe(sent.body, ear, admit)
        assert isinstance(refused, Refusal)
        failure = envelope.parse_reply(refused.body)
        assert isinstance(failure, Failure)
        assert failure.code == "access_denied"
        assert not made.rooms.subscriptions.count
