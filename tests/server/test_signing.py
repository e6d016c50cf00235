"""Signing replies beside the loop: each gets its own signature, whatever becomes of the process."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack

from colonist_protocol.identity import Identity, recover
from colonist_server.rpc.signing import MAX_TEXT_BYTES, Beside, Here, beside

KEY = Identity.from_entropy(b"a server's key, known to the tests")
DEADLINE_S = 20.0


async def _check(signer: Beside | Here, count: int) -> None:
    sizes = (1, 1_000, MAX_TEXT_BYTES, MAX_TEXT_BYTES + 1)
    texts = [os.urandom(sizes[number % len(sizes)]) for number in range(count)]
    signatures = await asyncio.gather(*map(signer.sign, texts))
    for text, signature in zip(texts, signatures, strict=True):
        assert recover(text, signature) == KEY.id


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


async def test_who_has_gone_holds_up_nobody() -> None:
    async with beside(KEY) as signer, asyncio.timeout(DEADLINE_S):
        assert isinstance(signer, Beside)
        while not signer.is_beside:
            await _check(signer, 3)
        gone = [asyncio.create_task(signer.sign(b"gone")) for _ in range(3)]
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
