"""How the bodies of requests are read: in time, and only so many large ones at once.

Anybody may announce a large body, so what counts is what has come: who says nothing holds nothing,
and who is slow is told to go. Small bodies know nothing of all this.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import StreamReader, web

from colonist_protocol.envelope import MAX_BODY_BYTES, MAX_LARGE_BODY_BYTES
from colonist_protocol.errors import BusyError, SlowError, TooLargeError

BODY_S: Final = 30.0
STEP_BYTES: Final = 1_048_576
STEP_S: Final = 4.0
"""Of a large body, each further `STEP_BYTES` come within `STEP_S`, 256 KiB/s, or it is refused."""
MAX_HELD_BYTES: Final = 67_108_864
"""What large bodies take together, from their first byte until they are answered."""
RETRY_S: Final = 2.0


def is_large(headers: Mapping[str, str]) -> bool:
    """Whether a body says that it is larger than most may be; one that says nothing may not."""
    length = headers.get("Content-Length", "")
    return length.isdecimal() and int(length) > MAX_BODY_BYTES


def limit(headers: Mapping[str, str]) -> int:
    """How long a body may be, in bytes, unpacked."""
    return MAX_LARGE_BODY_BYTES if is_large(headers) else MAX_BODY_BYTES


async def read(request: web.BaseRequest) -> bytes:
    """A small body. Raises `SlowError` and aiohttp's errors."""
    if request.content.is_eof():  # nearly always: it came with the headers
        return await request.read()
    _invite(request)
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise SlowError(f"the body did not come within {BODY_S:.0f} s") from None


class LargeBodies:
    """All large bodies that are being read or answered."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes."""
        return self._held

    @asynccontextmanager
    async def read(self, request: web.BaseRequest) -> AsyncGenerator[bytes]:
        """A large body, counted until the block is left.

        Raises `BusyError`, `SlowError`, `TooLargeError` and aiohttp's errors.
        """
        if int(request.headers["Content-Length"]) > MAX_LARGE_BODY_BYTES:
            raise _too_large()
        if self._held >= MAX_HELD_BYTES:
            raise _busy()
        _invite(request)
        flow = _Flow(request.content)
        parts = bytearray()
        held = 0
        try:
            while chunk := await flow.read():
                if held + len(chunk) > MAX_LARGE_BODY_BYTES:
                    raise _too_large()
                if self._held + len(chunk) > MAX_HELD_BYTES:
                    raise _busy()
                held += len(chunk)
                self._held += len(chunk)
                parts += chunk
            body = bytes(parts)
            parts.clear()
            yield body
        finally:
            self._held -= held


class _Flow:
    """What comes of a large body, which has to come fast enough."""

    __slots__ = ("_content", "_missing", "_until")

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self._begin_step()

    def _begin_step(self) -> None:
        self._until = asyncio.get_running_loop().time() + STEP_S
        self._missing = STEP_BYTES

    async def read(self) -> bytes:
        """The next part, b"" at the end. Raises `SlowError`."""
        try:
            async with asyncio.timeout_at(self._until):
                chunk = await self._content.readany()
        except TimeoutError:
            rate = STEP_BYTES / STEP_S / 1024
            raise SlowError(f"a large body comes with {rate:.0f} KiB/s at least") from None
        self._missing -= len(chunk)
        if self._missing <= 0:
            self._begin_step()
        return chunk


def _invite(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large() -> TooLargeError:
    return TooLargeError(f"body is over {MAX_LARGE_BODY_BYTES} bytes")


def _busy() -> BusyError:
    text = f"more than {MAX_HELD_BYTES} bytes of large requests at once, try again"
    return BusyError(text, retry_after_s=RETRY_S)
