"""Signing replies beside the loop: each gets its own signature, whatever becomes of the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable
from contextlib import AsyncExitStack

import pytest

from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope, Unsigned
from colonist_protocol.errors import HighSError, NoKeyError, SignatureError, SignatureHexError
from colonist_protocol.identity import ORDER, Identity
from colonist_protocol.process import GetProcess
from colonist_protocol.seal import VERSION, EpochSeal
from colonist_server.rpc.signing import MAX_BYTES, Beside, Here, beside

KEY = Identity.from_entropy(b"a server's key, known to the tests")
ADA = Identity.from_entropy(b"a caller's key, known to the tests")
SEAL = EpochSeal(VERSION, KEY.id, "", "0" * 32, 60)
DEADLINE_S = 20.0


def _reply(size: int) -> Unsigned:
    return Unsigned("getprocessmsg", os.urandom(size), os.urandom(8), is_error=size % 2 == 1)


def _request(number: int = 0) -> Envelope:
    body = envelope.pack_sealed_request(GetProcess(processid=f"{number:064x}"), ADA, SEAL)
    return envelope.parse_request(body)


async def _check(signer: Beside | Here, count: int) -> None:
    """Each is told its own, be it beside or here."""
    sizes = (1, 1_000, MAX_BYTES, MAX_BYTES + 1)
    replies = [_reply(sizes[number % len(sizes)]) for number in range(count)]
    requests = [_request(number) for number in range(count // 2)]
    verified = asyncio.gather(*(signer.verify(each, b"seal") for each in requests))
    bodies = await asyncio.gather(*map(signer.sign, replies))
    assert bodies == [reply.signed(KEY) for reply in replies]
    assert await verified == [envelope.authenticate(each, b"seal") for each in requests]


async def test_what_comes_alone_needs_no_process() -> None:
    async with beside(KEY) as signer:
        assert isinstance(signer, Beside)
        for _ in range(5):
            await _check(signer, 1)
        assert signer.pid == 0


async def test_what_comes_together_is_signed_in_order_by_a_process() -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(DEADLINE_S):
        signer = await stack.enter_async_context(beside(KEY))
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        await _check(signer, 500)
        pid = signer.pid
        await stack.aclose()
        assert not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240, PTH110 - no file, and at once


async def test_when_the_process_dies_what_it_had_is_signed_here() -> None:
    async with beside(KEY) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        os.kill(signer.pid, signal.SIGSTOP)
        stuck = asyncio.create_task(_check(signer, 50))
        while not signer.waiting:
            await asyncio.sleep(0)
        os.kill(signer.pid, signal.SIGKILL)
        await stuck
        assert not signer.is_beside
        await _check(signer, 50)


async def test_a_process_that_stands_still_is_left() -> None:
    async with beside(KEY, patience_s=0.2) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        os.kill(signer.pid, signal.SIGSTOP)
        await _check(signer, 50)
        assert not signer.is_beside
        os.kill(signer.pid, signal.SIGKILL)


async def test_who_has_gone_holds_up_nobody() -> None:
    async with beside(KEY) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        gone = [asyncio.create_task(signer.sign(_reply(5))) for _ in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await _check(signer, 5)


async def test_the_key_stands_in_no_argument_or_environment_of_the_process() -> None:
    async with beside(KEY) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        secret = KEY.reveal().encode()
        for name in ("cmdline", "environ"):
            with open(f"/proc/{signer.pid}/{name}", "rb") as file:  # noqa: ASYNC230, PTH123 - /proc
                content = file.read()
            assert secret not in content
            assert bytes.fromhex(KEY.reveal()) not in content


def _with(text: str, at: int, part: str) -> str:
    return text[:at] + part + text[at + len(part) :]


HALF_ORDER = ORDER // 2
BAD: dict[str, tuple[int, str, type[SignatureError]]] = {
    "not hex": (0, "xy", SignatureHexError),
    "high s": (64, f"{HALF_ORDER + 1:064x}", HighSError),
    "no key": (0, f"{5:064x}", NoKeyError),
}


@pytest.mark.parametrize(("at", "part", "error"), BAD.values(), ids=BAD)
async def test_a_bad_signature_is_refused_for_the_same_reason_beside(
    at: int, part: str, error: type[SignatureError]
) -> None:
    bad = _request()
    bad = Envelope(bad.payloadtype, bad.payload, _with(bad.signature, at, part), bad.seal)
    async with beside(KEY) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        found: list[Awaitable[object]] = [signer.verify(bad, b""), signer.verify(_request(), b"")]
        refused, good = await asyncio.gather(*found, return_exceptions=True)
        assert type(refused) is error
        assert good == envelope.authenticate(_request())
