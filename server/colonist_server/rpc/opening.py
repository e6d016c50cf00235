"""Opening requests: who signed one, and the message in it. Polls are opened once."""

from __future__ import annotations

from typing import Final

from colonist_core.process import Cause
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope
from colonist_protocol.message import Message
from colonist_server.rpc.admission import Admission
from colonist_server.rpc.asked import Asked, route_of
from colonist_server.rpc.callers import Callers
from colonist_server.rpc.table import ROUTES

MAX_POLLS: Final = 20_000
MAX_POLL_CHARS: Final = 1024


class Opener:
    """Opens what is not sealed, and what is large.

    An executor that polls sends the same bytes again and again (RFC 6979 signatures are
    deterministic), and the same bytes prove the same caller: 35 us saved for each poll.
    """

    __slots__ = ("_admission", "_callers", "polls")

    def __init__(self, callers: Callers, admission: Admission) -> None:
        self._callers = callers
        self._admission = admission
        self.polls: dict[tuple[str, str], tuple[Cause, Message, bytes]] = {}

    def open_poll(self, request: Envelope) -> tuple[Cause, Message, bytes]:
        """A plain assign. Raises as `open` does."""
        key = (request.payload, request.signature)
        opened = self.polls.get(key)
        if opened is None:
            opened = self.open(request)
            if len(request.payload) <= MAX_POLL_CHARS:  # whoever signs it may fill this
                if len(self.polls) >= MAX_POLLS:
                    self.polls.clear()
                self.polls[key] = opened
        return opened

    def open(self, request: Envelope) -> tuple[Cause, Message, bytes]:
        """Who signed it, the message, and its JSON. Raises what a stranger is refused with."""
        cause = self.cause_of(request)
        route = route_of(request)
        message, payload = envelope.open_payload(request, route.kind)
        return cause, message, payload

    def cause_of(self, request: Envelope) -> Cause:
        """Who signed it. Raises `SignatureError`."""
        signed = self._callers.of(request)
        return Cause(signed.caller, signed.digest, signed.signature)

    async def open_large(self, request: Envelope, cause: Cause) -> tuple[Cause, Message, bytes]:
        """Check access before the message is read: strict reading of 9 MB takes 0.3 s.

        So whoever has no access to the colony is told that, where a smaller message would first be
        found to be malformed (COLONIES-RPC section 1.5 has that asked; it has no such sizes).
        """
        route = ROUTES[request.payloadtype]
        outline, payload = envelope.outline(request)
        await self._admission.let_in(Asked(route, cause, payload, outline))
        return cause, envelope.open_payload(request, route.kind, payload)[0], payload
