"""A sealed subscription: each frame is signed for its caller and its order, and numbered from 0.

An order has one stream: its bytes are taken once (`SealedRequests`). So nobody on the way can
change, repeat, drop or invent an event without being noticed.
"""

from __future__ import annotations

from colonist_protocol import envelope
from colonist_protocol.errors import ColonistError
from colonist_server.repo.topics import Ending, Sink, Subscription
from colonist_server.rpc.sealing import Asker, Sealing

_EVENT = "subscribeprocessmsg"


class SealedSink:
    """Seals what it is given, and passes it on."""

    __slots__ = ("_asker", "_sealing", "_sink")

    def __init__(self, sink: Sink, sealing: Sealing, asker: Asker) -> None:
        self._sink = sink
        self._sealing = sealing
        self._asker = asker

    def deliver(self, frame: bytes) -> None:
        """Send an event."""
        payload = envelope.parse_reply(frame)
        if isinstance(payload, bytes):
            self._sink.deliver(self._sealed(_EVENT, payload, ok=True))

    def refuse(self, error: ColonistError) -> None:
        """Say why there will be no more."""
        self._sink.deliver(self.refusal(error))

    def refusal(self, error: ColonistError) -> bytes:
        """The next frame, an error."""
        return self._sealed(envelope.ERROR, envelope.failure_json(error), ok=False)

    def over(self, subscription: Subscription, ending: Ending) -> None:
        """Nothing more will come."""
        self._sink.over(subscription, ending)

    def _sealed(self, kind: str, payload: bytes, *, ok: bool) -> bytes:
        sent = self._sealing.reply_at_once(self._asker, kind, payload, ok=ok)
        self._asker.index += 1
        return sent
