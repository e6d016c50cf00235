"""Transports for tests: straight into a fake server, with faults on request."""

import asyncio
from collections.abc import Awaitable, Callable

from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol import envelope

Answer = Callable[[bytes], Awaitable[bytes]]


class DirectTransport:
    """No network: calls the server in the same loop. Faults are set as attributes."""

    way = "direct"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.is_down = False
        self.drop_replies_to: set[str] = set()
        self.sent: list[tuple[float, str]] = []
        self.bodies: list[bytes] = []

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """One exchange, with the fault that is set."""
        kind = envelope.parse_request(body).payloadtype
        self.sent.append((asyncio.get_running_loop().time(), kind))
        self.bodies.append(body)
        if self.is_down:
            raise NotSentError("direct: no connection")
        try:
            async with asyncio.timeout(wait_s):
                reply = await self.answer(body)
        except TimeoutError:
            raise UnreachableError("direct: no reply") from None
        if kind in self.drop_replies_to:
            raise UnreachableError("direct: the reply was lost")
        return reply

    async def close(self) -> None:
        """Nothing to let go of."""

    def count(self, kind: str) -> int:
        """How often a type of message was sent."""
        return sum(sent == kind for _, sent in self.sent)
