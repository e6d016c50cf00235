"""What every transport promises, whatever carries the envelopes.

An implementation gives a `Link`: a transport to a server whose answers the test decides, and ways
to take that server away and bring it back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest

from colonist_client.transport import Transport, UnreachableError
from colonist_protocol import envelope
from colonist_protocol.errors import AccessError
from colonist_protocol.identity import Identity
from colonist_protocol.process import GetProcess

KEY = Identity(bytes(31) + b"\x09")
LONG_S = 30.0


class Link(Protocol):
    """A transport under test, and the far end."""

    transport: Transport
    answer: Callable[[bytes], Awaitable[bytes]]

    async def take_away(self) -> None:
        """The server goes."""
        ...

    async def bring_back(self) -> None:
        """The server is there again, at the same address."""
        ...


def request(text: str = "p") -> bytes:
    """A signed request; different texts make different bytes."""
    return envelope.pack_request(GetProcess(processid=text), KEY)


async def echo(body: bytes) -> bytes:
    """Answer a request with its own payload."""
    found = envelope.parse_request(body)
    return envelope.pack_reply(found.payloadtype, found.payload.encode())


async def said(reply: bytes) -> str:
    """What `echo` answered."""
    payload = envelope.parse_reply(reply)
    assert isinstance(payload, bytes)
    return payload.decode()


async def expected(body: bytes) -> str:
    """What `echo` will answer."""
    return envelope.parse_request(body).payload


class TransportLaws:
    """Subclass with a fixture `link`."""

    async def test_reply_is_that_of_the_request(self, link: Link) -> None:
        link.answer = echo
        body = request()
        reply = await link.transport.exchange(body, wait_s=LONG_S)
        assert await said(reply) == await expected(body)

    async def test_request_arrives_byte_for_byte(self, link: Link) -> None:
        seen: list[bytes] = []

        async def note(body: bytes) -> bytes:
            seen.append(body)
            return await echo(body)

        link.answer = note
        body = request("å" * 10_000)
        await link.transport.exchange(body, wait_s=LONG_S)
        assert seen == [body]

    async def test_many_at_once_get_their_own_replies(self, link: Link) -> None:
        everybody = asyncio.Barrier(8)

        async def together(body: bytes) -> bytes:
            await everybody.wait()  # none is answered before all are there
            return await echo(body)

        link.answer = together
        bodies = [request(str(number)) for number in range(8)]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(link.transport.exchange(body, wait_s=LONG_S)) for body in bodies
            ]
        for body, task in zip(bodies, tasks, strict=True):
            assert await said(task.result()) == await expected(body)

    async def test_failure_replies_are_replies(self, link: Link) -> None:
        async def refuse(_: bytes) -> bytes:
            return envelope.pack_failure(AccessError("Access denied"))

        link.answer = refuse
        reply = envelope.parse_reply(await link.transport.exchange(request(), wait_s=LONG_S))
        assert isinstance(reply, envelope.Failure)
        assert reply.code == "access_denied"

    async def test_silence_ends_after_the_given_time(self, link: Link) -> None:
        link.answer = _never
        with pytest.raises(UnreachableError):
            await link.transport.exchange(request(), wait_s=0.2)

    async def test_after_silence_it_works_again(self, link: Link) -> None:
        link.answer = _never
        with pytest.raises(UnreachableError):
            await link.transport.exchange(request("first"), wait_s=0.2)
        link.answer = echo
        body = request("second")
        assert await said(await link.transport.exchange(body, wait_s=LONG_S)) == await expected(
            body
        )

    async def test_cancelling_abandons_an_exchange_and_nothing_else(self, link: Link) -> None:
        arrived = asyncio.Event()

        async def hang(_: bytes) -> bytes:
            arrived.set()
            return await _never(b"")

        link.answer = hang
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.transport.exchange(request("first"), wait_s=LONG_S))
            await arrived.wait()
            task.cancel()
        assert task.cancelled()
        link.answer = echo
        body = request("second")
        assert await said(await link.transport.exchange(body, wait_s=LONG_S)) == await expected(
            body
        )

    async def test_server_that_is_gone_is_unreachable_and_found_again(self, link: Link) -> None:
        link.answer = echo
        await link.transport.exchange(request("before"), wait_s=LONG_S)
        await link.take_away()
        with pytest.raises(UnreachableError) as raised:
            await link.transport.exchange(request("during"), wait_s=0.5)
        assert "\n" not in str(raised.value)
        await link.bring_back()
        body = request("after")
        assert await said(await link.transport.exchange(body, wait_s=LONG_S)) == await expected(
            body
        )

    async def test_close_ends_open_exchanges(self, link: Link) -> None:
        arrived = asyncio.Event()

        async def hang(_: bytes) -> bytes:
            arrived.set()
            return await _never(b"")

        link.answer = hang
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_outcome(link.transport))
            await arrived.wait()
            await link.transport.close()
        assert isinstance(task.result(), UnreachableError)
        with pytest.raises(UnreachableError):
            await link.transport.exchange(request(), wait_s=LONG_S)

    async def test_close_twice_is_close(self, link: Link) -> None:
        await link.transport.close()
        await link.transport.close()


async def _outcome(transport: Transport) -> object:
    try:
        return await transport.exchange(request(), wait_s=LONG_S)
    except UnreachableError as error:
        return error


async def _never(_: bytes) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError
