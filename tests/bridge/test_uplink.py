"""Whether the server is there: said by connects and probes only, never by one odd request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from colonist_bridge.uplink import ServerUplink
from colonist_client.retry import Backoff
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.envelope import pack_reply
from colonist_protocol.errors import TooLargeError
from tests.support.clock import virtual

REPLY = pack_reply("versionmsg", b"{}")
PORTAL = b'{"welcome":"accept our terms"}'


class Server:
    """A transport that answers as told, for probes and for others."""

    way = "fake"

    def __init__(self) -> None:
        self.probe: bytes | Exception = REPLY
        self.other: bytes | Exception = REPLY
        self.probes = 0

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        answer = self.other
        if b"versionmsg" in body:
            self.probes += 1
            answer = self.probe
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Nothing is open."""


@contextlib.asynccontextmanager
async def uplink(server: Server) -> AsyncIterator[tuple[ServerUplink, list[bool]]]:
    turns: list[bool] = []
    made = ServerUplink(
        server,
        reply_bytes=1000,
        backoff=Backoff(uniform=lambda _low, high: high, base_s=1, cap_s=4),
        wall=asyncio.get_running_loop().time,
        on_change=lambda: turns.append(made.is_up),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        await asyncio.sleep(0.1)
        yield made, turns
        task.cancel()


@virtual
async def test_a_server_that_answers_is_up_after_one_probe() -> None:
    server = Server()
    async with uplink(server) as (link, turns):
        await asyncio.sleep(1000)
        assert (link.is_up, turns, server.probes) == (True, [], 1)


@virtual
@pytest.mark.parametrize(
    "answer", [NotSentError("no"), UnreachableError("slow"), PORTAL, b"<html>"]
)
async def test_whoever_does_not_answer_the_probe_with_a_reply_is_no_server(
    answer: bytes | Exception,
) -> None:
    server = Server()
    server.probe = answer
    async with uplink(server) as (link, turns):
        assert (link.is_up, turns) == (False, [False])
        server.probe = REPLY
        await asyncio.sleep(5)
        assert (link.is_up, turns) == (True, [False, True])


@virtual
async def test_probes_back_off_to_the_cap() -> None:
    server = Server()
    server.probe = NotSentError("no")
    async with uplink(server):
        await asyncio.sleep(100)
        assert 24 <= server.probes <= 28  # after 0, 1, 2, 4, 4, 4, ... seconds


@virtual
async def test_a_request_that_could_not_leave_turns_the_uplink_down_at_once() -> None:
    server = Server()
    async with uplink(server) as (link, _):
        server.other = server.probe = NotSentError("no")
        with pytest.raises(NotSentError):
            await link.exchange(b"r", wait_s=1)
        assert not link.is_up


@virtual
@pytest.mark.parametrize("answer", [UnreachableError("slow"), PORTAL])
async def test_one_request_without_a_reply_only_makes_the_bridge_look(
    answer: bytes | Exception,
) -> None:
    server = Server()
    async with uplink(server) as (link, turns):
        server.other = answer
        with pytest.raises(UnreachableError):
            await link.exchange(b"r", wait_s=1)
        await asyncio.sleep(0.1)
        assert (link.is_up, turns, server.probes) == (True, [], 2)


@virtual
async def test_a_reply_over_the_limit_is_no_reason_to_doubt() -> None:
    server = Server()
    async with uplink(server) as (link, _):
        server.other = pack_reply("x", b"x" * 2000)
        with pytest.raises(TooLargeError):
            await link.exchange(b"r", wait_s=1)
        await asyncio.sleep(0.1)
        assert server.probes == 1


@virtual
async def test_age_is_that_of_the_last_reply() -> None:
    server = Server()
    server.probe = NotSentError("no")
    async with uplink(server) as (link, _):
        assert link.age_s is None
        server.probe = REPLY
        await asyncio.sleep(10)
        assert link.age_s is not None
        assert 0 < link.age_s < 11
