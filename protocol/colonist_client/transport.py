"""How an envelope reaches a server and its reply comes back; HTTP and MQTT are two ways of it."""

from __future__ import annotations

from typing import Protocol

from colonist_protocol.errors import ColonistError


class UnreachableError(ColonistError):
    """No reply came: the server, the bridge or the network is not there. The outcome is unknown.

    `said_code` is the code of a failure that something answered, for which nobody vouches.
    `is_repeatable`: whether the same bytes may still be answered.
    """

    status = 503
    code = "unreachable"
    said_code = ""
    is_repeatable = True


class NotSentError(UnreachableError):
    """The request never left: no connection came about. It had no effect, so it may be repeated."""


class Transport(Protocol):
    """Carries signed envelopes; knows nothing of what is in them."""

    @property
    def way(self) -> str:
        """How it goes, for people: `http`, `mqtt`, ..."""
        ...

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """Send one request body and return the reply body.

        `wait_s` bounds the whole exchange. Cancelling abandons it. Raises `UnreachableError`.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; open exchanges end with `UnreachableError`."""
        ...
