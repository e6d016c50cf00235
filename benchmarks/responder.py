"""A server that does nothing: one canned answer to any request.

The generator runs against it to show how much it could send if the server cost nothing.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b"


class Responder(asyncio.Protocol):
    """Answers each write of a client as one request: the generator sends one at a time."""

    __slots__ = ("_answer", "_transport")

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]

    def data_received(self, data: bytes) -> None:
        """Answer."""
        if self._transport is not None:
            self._transport.write(self._answer)


async def serve(port: int, body: bytes) -> None:
    """Answer for ever."""
    answer = _HEAD % (len(body), body)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Responder(answer), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
