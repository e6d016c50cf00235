"""The bridge's list of members: asked for when a sealed reply tells of another revision."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NamedTuple

import pytest

from colonist_bridge.config import load
from colonist_bridge.counts import Counts
from colonist_bridge.members import OUTSIDE_S, REFUSED_S, Members
from colonist_bridge.rate import Rate
from colonist_bridge.reply import Reply, read_reply
from colonist_bridge.screen import ENROL_TOPIC, Refusal, screen_enrolment
from colonist_client import keyfile
from colonist_client.retry import Backoff
from colonist_client.sealer import Pin
from colonist_protocol.colony import GetColony
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.executor import ChangeExecutorId, RejectExecutor, RemoveExecutor
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.process import GetProcess
from colonist_protocol.user import AddUser, RemoveUser, User
from tests.support import enrolling, sealing
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, SERVER_KEYS, Bench, bench, key
from tests.support.transports import DirectTransport

ADA, BEN, UMA, GATEWAY, STRANGER = map(key, ("ada", "ben", "uma", "gateway", "stranger"))


class Site(NamedTuple):
    """A colony, a bridge's list of its members, and the ids that it gave up."""

    made: Bench
    members: Members
    way: DirectTransport
    gone: list[str]
    counts: Counts

    async def pass_reply(self, who: Identity) -> Reply:
        """A sealed reply to somebody passes the bridge."""
        sent = sealing.of_now(self.made.dispatch, GetColony(colonyname=COLONY), who)
        answer = await self.made.dispatch.answer(sent.body)
        reply = read_reply(answer.body, max_bytes=100_000)
        self.members.heard(reply)
        return reply

    @property
    def looks(self) -> int:
        return self.counts.of("members_read")


@contextlib.asynccontextmanager
async def site() -> AsyncGenerator[Site]:
    async with bench(MemoryStore()) as made, asyncio.TaskGroup() as group:
        await made.found("ada", "ben", "gateway")
        user = User(colonyname=COLONY, userid=UMA.id, name="uma")
        await made.call(AddUser(user=user), COLONY_OWNER)

        async def answer(body: bytes) -> bytes:
            return (await made.dispatch.answer(body)).body

        way, gone, counts = DirectTransport(answer), list[str](), Counts()
        members = Members(
            way,
            GATEWAY,
            Pin(SERVER_KEYS.id),
            colony=COLONY,
            withdraw=gone.append,
            backoff=Backoff(uniform=lambda _low, high: high, base_s=1, cap_s=8),
            counts=counts,
        )
        assert not members.is_outside(STRANGER.id)  # nothing is known yet
        task = group.create_task(members.run())
        await asyncio.sleep(5)
        yield Site(made, members, way, gone, counts)
        task.cancel()


@virtual
async def test_members_are_known_and_strangers_are_outside() -> None:
    async with site() as here:
        assert not any(here.members.is_outside(each.id) for each in (ADA, BEN, UMA, GATEWAY))
        assert here.members.is_outside(STRANGER.id)
        for _ in range(5):
            await here.pass_reply(ADA)
            await asyncio.sleep(5)
        assert here.looks == 1


@pytest.mark.parametrize(
    ("removal", "who"),
    [
        (RemoveExecutor(colonyname=COLONY, executorname="ben"), BEN),
        (RejectExecutor(colonyname=COLONY, executorname="ben"), BEN),
        (RemoveUser(colonyname=COLONY, name="uma"), UMA),
    ],
)
@virtual
async def test_a_removal_is_in_force_at_the_next_contact(removal: Message, who: Identity) -> None:
    async with site() as here:
        await here.made.call(removal, COLONY_OWNER)
        await asyncio.sleep(100)
        assert not here.members.is_outside(who.id)  # no contact yet
        await here.pass_reply(ADA)
        await asyncio.sleep(0.1)
        assert here.members.is_outside(who.id)
        assert here.gone == [who.id]


@virtual
async def test_the_refusal_of_the_removed_one_is_such_a_contact_too() -> None:
    async with site() as here:
        removal = RemoveExecutor(colonyname=COLONY, executorname="ben")
        await here.made.call(removal, COLONY_OWNER)
        assert (await here.pass_reply(BEN)).is_error
        await asyncio.sleep(0.1)
        assert here.gone == [BEN.id]


@virtual
async def test_who_enrols_is_inside_soon() -> None:
    async with site() as here:
        code = await enrolling.open_claim(here.made)
        await enrolling.enrol(here.made.dispatch, code, key("device"))
        await here.pass_reply(key("device"))
        await asyncio.sleep(0.1)
        assert not here.members.is_outside(key("device").id)


@virtual
async def test_what_the_pinned_server_did_not_sign_changes_nothing() -> None:
    async with site() as here:
        removal = RemoveExecutor(colonyname=COLONY, executorname="ben")
        await here.made.call(removal, COLONY_OWNER)
        sent = sealing.of_now(here.made.dispatch, GetColony(colonyname=COLONY), ADA)
        answer = await here.made.dispatch.answer(sent.body)
        forged = answer.body.replace(b'"payload":"', b'"payload":"AAAA')
        here.members.heard(read_reply(forged, max_bytes=100_000))
        await asyncio.sleep(10)
        assert (here.looks, here.gone) == (1, [])


@virtual
async def test_replies_of_another_colony_make_it_look_once_in_a_while_only() -> None:
    async with site() as here:
        reply = await here.pass_reply(ADA)
        for _ in range(100):
            await here.made.call(
                AddUser(user=User(colonyname=COLONY, userid=key("x").id, name="x")), COLONY_OWNER
            )
            await here.made.call(RemoveUser(colonyname=COLONY, name="x"), COLONY_OWNER)
            await here.pass_reply(COLONY_OWNER)  # no member, and not in any list
            await asyncio.sleep(1)
        assert 1 < here.looks <= 2 + 100 / OUTSIDE_S
        assert reply.seal is not None


@virtual
async def test_a_list_that_cannot_be_read_is_asked_for_again() -> None:
    async with site() as here:
        here.way.is_down = True
        await here.made.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        await here.pass_reply(ADA)
        await asyncio.sleep(30)
        assert here.gone == []
        here.way.is_down = False
        await asyncio.sleep(20)
        assert here.gone == [UMA.id]


def test_a_rate_lets_a_few_through_at_once_and_then_so_many_a_second() -> None:
    now = [0.0]
    rate = Rate(per_s=1, burst=3, clock=lambda: now[0])
    assert [rate.takes_one() for _ in range(5)] == [True, True, True, False, False]
    now[0] = 1.5
    assert [rate.takes_one() for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert sum(rate.takes_one() for _ in range(9)) == 3


@virtual
async def test_only_sealed_enrolments_pass_without_an_account() -> None:
    async with bench(MemoryStore()) as made:
        message = enrolling.enrol_of(made.dispatch, enrolling.code_of("card"), key("device"))
        sent = sealing.of_now(made.dispatch, message, key("device"))
        passed = screen_enrolment(sent.body, max_bytes=100_000)
        assert not isinstance(passed, Refusal)
        assert (passed.device, passed.caller, passed.re) == (
            ENROL_TOPIC,
            key("device").id,
            sent.re,
        )
        other = sealing.of_now(made.dispatch, GetProcess(processid="p"), key("device")).body
        for body in (b"{}", other, sent.body.replace(b'"seal"', b'"saal"'), b"x" * 20_000):
            assert isinstance(screen_enrolment(body, max_bytes=100_000), Refusal)


def test_a_key_of_the_bridge_needs_a_colony_and_a_pin(tmp_path: Path) -> None:
    path = tmp_path / "bridge.key"
    keyfile.write(path, GATEWAY)
    flags = {
        "name": "edge",
        "server_url": "http://127.0.0.1:1",
        "broker_url": "mqtt://127.0.0.1:1",
        "key_file": str(path),
    }
    with pytest.raises(InvalidValueError, match="colony and server_id"):
        load(None, {}, flags)
    made = load(None, {}, {**flags, "colony": COLONY, "server_id": SERVER_KEYS.id})
    assert made.identity == GATEWAY
    assert GATEWAY.reveal() not in repr(made)


@virtual
async def test_a_bridge_whose_key_is_not_known_any_more_says_what_helps_and_is_patient(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with site() as here:
        renamed = ChangeExecutorId(colonyname=COLONY, executorid=key("its next").id)
        await here.made.call(renamed, GATEWAY)
        await here.pass_reply(ADA)
        asked = len(here.way.sent)
        await asyncio.sleep(100)
        told = [each.message for each in caplog.records if "cannot be read" in each.message]
        assert told
        assert all("start the bridge again with the new one" in each for each in told)
        assert len(told) <= 100 / REFUSED_S + 1
        assert len(here.way.sent) - asked <= len(told)
        assert not here.members.is_outside(ADA.id)
