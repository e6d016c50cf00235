"""Opening the seals of requests, and sealing replies."""

from __future__ import annotations

from colonist_core.process import MILLISECOND_NS, Cause
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope
from colonist_protocol.errors import SealError, WrongServerError
from colonist_protocol.seal import (
    MAX_SHORT_TTL_S,
    VERSION,
    EpochSeal,
    ReplySeal,
    RequestSeal,
    read_request_seal,
)
from colonist_server.repo.clock import Clock
from colonist_server.repo.epochs import Epochs
from colonist_server.repo.nouns import Colony
from colonist_server.repo.trail import Trail
from colonist_server.rpc.callers import Callers
from colonist_server.rpc.signing import Here, Signer


class Asker:
    """Who is to be answered: the caller of a sealed request, and which of its grants.

    `to` is the server id that the request names, `colony` the one that the message is about, as
    soon as that is known; `has_claim`: it has proved a claim to it.
    """

    __slots__ = ("colony", "has_claim", "index", "re", "to", "who")

    def __init__(self, cause: Cause, index: int, to: str) -> None:
        self.who = cause.who
        self.re = cause.digest.hex()
        self.index = index
        self.to = to
        self.colony: Colony | None = None
        self.has_claim = False


class Sealing:
    """Seals under the server's key."""

    __slots__ = ("_callers", "_clock", "_epochs", "_server_keys", "_signer", "_trail")

    def __init__(
        self,
        epochs: Epochs,
        trail: Trail,
        clock: Clock,
        callers: Callers,
        signer: Signer | None = None,
    ) -> None:
        self._trail = trail
        self._signer = signer or Here(epochs.server_keys.current.identity)
        self._epochs = epochs
        self._server_keys = epochs.server_keys
        self._clock = clock
        self._callers = callers

    async def open(self, request: Envelope) -> tuple[Cause, RequestSeal]:
        """Who signed a sealed request, cheapest check first.

        Raises `SealError`, `WrongServerError`, `SignatureError`.
        """
        seal, text = self._meant(request)
        signed = self._callers.kept(request) or await self._signer.verify(request, text)
        return Cause(signed.caller, signed.digest, signed.signature, text), seal

    def open_at_once(self, request: Envelope) -> tuple[Cause, RequestSeal]:
        """The same, where nothing may come between."""
        seal, text = self._meant(request)
        signed = self._callers.of(request, text)
        return Cause(signed.caller, signed.digest, signed.signature, text), seal

    def _meant(self, request: Envelope) -> tuple[RequestSeal, bytes]:
        """The seal of what is meant for this server, and its JSON."""
        seal, text = read_request_seal(request.seal, request.payloadtype)
        if seal.to not in self._server_keys.ids:
            raise WrongServerError(
                f"the seal names another server than this one, {self._server_keys.id}: check the "
                "server id that the client has pinned"
            )
        return seal, text

    async def reply(
        self, asker: Asker, payloadtype: str, payload: bytes, *, ok: bool, event: bytes = b""
    ) -> bytes:
        """The body of a sealed reply."""
        unsigned = self._sealed(asker, payloadtype, payload, ok=ok, event=event)
        if self._server_keys.signing(asker.to) is not self._server_keys.current:
            return self._signed(unsigned, asker)
        body, via = await self._signer.sign(unsigned), self._server_keys.via
        return envelope.with_via(body, via) if via else body

    def reply_at_once(
        self, asker: Asker, payloadtype: str, payload: bytes, *, ok: bool, event: bytes = b""
    ) -> bytes:
        """The body of a sealed reply, where nothing may come between."""
        return self._signed(self._sealed(asker, payloadtype, payload, ok=ok, event=event), asker)

    def _signed(self, unsigned: envelope.Unsigned, asker: Asker) -> bytes:
        key = self._server_keys.signing(asker.to)
        via = self._server_keys.via if key is self._server_keys.current else ()
        return unsigned.signed(key.identity, via)

    def _sealed(
        self, asker: Asker, payloadtype: str, payload: bytes, *, ok: bool, event: bytes
    ) -> envelope.Unsigned:
        seal = ReplySeal(
            VERSION,
            asker.who,
            asker.re,
            asker.index,
            ok,
            self._epochs.token,
            self._clock.now_ns() // MILLISECOND_NS,
            self._trail.revision(asker.colony.tag) if asker.colony is not None else 0,
            event.hex(),
        )
        return envelope.sealed_reply(payloadtype, payload, seal)


def check_short(seal: EpochSeal, what: str) -> None:
    """Raise `SealError` where a request asks to live longer than one of its kind may."""
    if seal.ttl > MAX_SHORT_TTL_S:
        raise SealError(f"the ttl of {what} is over {MAX_SHORT_TTL_S} s")
