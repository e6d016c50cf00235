"""Agents that have followed a change of the server's key, when the old key is deleted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import msgspec
import pytest

from colonist_agent.context import Context
from colonist_client.caller import decoded
from colonist_client.client import Client
from colonist_client.sealer import NotGenuineError, Pin, Seqs
from colonist_client.transport import UnreachableError
from colonist_protocol import envelope
from colonist_protocol.process import CloseSuccessful, Outcome, State
from colonist_protocol.seal import read_request_seal
from colonist_protocol.tokens import ServerKeys
from tests.agent.test_sealed_agent import Hand
from tests.agent.workshop import Workshop
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, SERVER_KEYS, bench, key

OLD, NEW = key("server"), key("server's next")
BOTH, NEW_ONLY = ServerKeys(NEW, (OLD,)), ServerKeys(NEW)


class Site:
    """A server that is started anew with other keys, on the same store."""

    def __init__(
        self, shop: Workshop, store: MemoryStore, stack: contextlib.AsyncExitStack
    ) -> None:
        self.shop = shop
        self._store = store
        self._stack = stack

    async def start_again(self, keys: ServerKeys) -> None:
        await self._stack.aclose()
        self.shop.bench = await self._stack.enter_async_context(
            bench(self._store, server_keys=keys)
        )


@contextlib.asynccontextmanager
async def site() -> AsyncGenerator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        store = MemoryStore()
        made = await stack.enter_async_context(bench(store, server_keys=SERVER_KEYS))
        await made.found("ada")
        await made.hire("boss", type="boss")
        yield Site(Workshop(made), store, stack)


def _to(body: bytes) -> str:
    sent = envelope.parse_request(body)
    return read_request_seal(sent.seal, sent.payloadtype)[0].to


@pytest.mark.parametrize("is_answered", [True, False])
@virtual
async def test_agent_goes_on_when_the_key_that_it_began_with_is_gone(
    is_answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with site() as place:
        hand = Hand(place.shop, "ada")

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            assert (await place.shop.ended(await hand.submit("f"))).output() == [1]
            if not is_answered:  # the question that is open stays open, under the old key
                hand.transport.lose = {"assignprocessmsg": 1_000}
            await place.start_again(BOTH)
            if is_answered:  # it is the answer to that question that tells of the new key
                await asyncio.sleep(100)
            process_id = await hand.submit("f")
            assert hand.client.sealer is not None
            assert hand.client.sealer.pin.id == NEW.id
            if is_answered:
                assert (await place.shop.ended(process_id)).output() == [1]
            await asyncio.sleep(40)
            asked = len(hand.transport.bodies_of("assignprocessmsg"))
            await place.start_again(NEW_ONLY)
            await asyncio.sleep(40)  # longer than a question is open
            hand.transport.lose = {}
            process_id = await hand.submit("f")
            async with asyncio.timeout(120):
                assert (await place.shop.ended(process_id)).output() == [1]
            asks = hand.transport.bodies_of("assignprocessmsg")[asked:]
            assert {_to(each) for each in asks} == ({NEW.id} if is_answered else {OLD.id, NEW.id})
        assert "key_refused" not in caplog.text


@virtual
async def test_result_of_an_attempt_that_the_old_key_made_is_dropped_and_the_work_done_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with site() as place:
        hand = Hand(place.shop, "ada")
        ran: list[int] = []

        @hand.registry.function("f")
        async def f(context: Context) -> int:
            ran.append(1)
            if len(ran) == 1:
                hand.transport.is_down = True
                context.log("a line")
            return len(ran)

        async with hand.running():
            process_id = await hand.submit("f", maxexectime=100, maxretries=3)
            await asyncio.sleep(20)
            await place.start_again(BOTH)
            assert hand.client.sealer is not None
            hand.client.sealer.pin.follow(NEW.id)
            await place.start_again(NEW_ONLY)
            hand.transport.is_down = False
            done = await place.shop.ended(process_id)
        assert (done.state, done.output()) == (State.SUCCESS, [2])
        assert f"result_dropped process={process_id}" in caplog.text
        assert "attempt_invalid" in caplog.text


@virtual
async def test_result_that_counted_already_is_sealed_anew_and_counts_once() -> None:
    async with site() as place:
        await place.start_again(BOTH)
        hand = Hand(place.shop, "ada")
        process_id = await hand.submit("f")
        granted = await hand.client.assign(COLONY)
        assert granted is not None
        assert granted.attempt is not msgspec.UNSET
        late = Client(hand.transport, key("ada"), pin=Pin(OLD.id))
        message = CloseSuccessful(processid=process_id, out=msgspec.Raw(b"[7]"))
        request = late.pack(message, Seqs(granted.attempt.token, 5))
        hand.transport.lose = {"closesuccessfulmsg": 1}
        with pytest.raises(UnreachableError):
            await late.deliver(request)
        counted = await place.shop.get(process_id)
        await place.start_again(NEW_ONLY)
        with pytest.raises(NotGenuineError):  # nothing is known of another key yet
            await late.deliver(request)
        assert late.sealer is not None
        late.sealer.pin.follow(NEW.id)
        reply = await late.deliver(request)
        assert decoded(reply, Outcome, message).outcome == "counted"
        assert await place.shop.get(process_id) == counted


@virtual
async def test_node_that_has_not_taken_the_new_key_yet_is_asked_under_it() -> None:
    async with site() as place:
        hand = Hand(place.shop, "ada")

        @hand.registry.function("f")
        async def f() -> int:
            return 1

        async with hand.running():
            await place.start_again(ServerKeys(OLD, coming=NEW))
            await asyncio.sleep(20)  # a question is open, under the old key
            assert hand.client.sealer is not None
            hand.client.sealer.pin.follow(NEW.id)  # another node has answered something
            process_id = await hand.submit("f")
            async with asyncio.timeout(60):
                done = await place.shop.ended(process_id)
        assert (done.output(), done.retries) == ([1], 0)
