"""Sealed requests, as a client makes them, and their replies, as it checks them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from colonist_protocol import codec, digests, envelope
from colonist_protocol.envelope import Envelope, Failure
from colonist_protocol.identity import Identity
from colonist_protocol.message import Message
from colonist_protocol.seal import VERSION, AttemptSeal, EpochSeal, ReplySeal, RequestSeal
from colonist_server.rpc.dispatch import Answer, Dispatch

_numbers = itertools.count()


class Sealed(NamedTuple):
    """A request that was sealed; `re` is its digest in hex."""

    body: bytes
    re: str
    identity: Identity
    server: str

    def opened(self, body: bytes, *, index: int = 0) -> envelope.Genuine:
        """The reply to it, checked. Raises for what is none."""
        return envelope.open_sealed_reply(
            body, server=self.server, caller=self.identity.id, re=self.re, index=index
        )


def digest_of(body: bytes) -> str:
    """The digest that a sealed request's signature covers."""
    sent = codec.decode(body, Envelope, "envelope")
    return digests.tagged_digest(digests.REQUEST, sent.payload, sent.seal).hex()


def seal(message: Message, identity: Identity, given: RequestSeal) -> Sealed:
    """A message under a seal."""
    body = envelope.pack_sealed_request(message, identity, given)
    return Sealed(body, digest_of(body), identity, given.to)


def of_now(dispatch: Dispatch, message: Message, identity: Identity, ttl: int = 600) -> Sealed:
    """A message sealed with the newest token, as no message was before."""
    epochs = dispatch.rooms.epochs
    nonce = f"{next(_numbers):032x}"
    given = EpochSeal(VERSION, epochs.server_keys.id, epochs.token, nonce, ttl)
    return seal(message, identity, given)


def of_attempt(
    dispatch: Dispatch, message: Message, identity: Identity, token: str, seq: int
) -> Sealed:
    """A message of an attempt."""
    given = AttemptSeal(VERSION, dispatch.rooms.server_keys.id, token, seq)
    return seal(message, identity, given)


async def present(dispatch: Dispatch, sealed: Sealed) -> tuple[Any, ReplySeal]:
    """Send it once: the reply's JSON as plain values, or the failure; and the seal of the reply."""
    answer: Answer = await dispatch.answer(sealed.body)
    genuine = sealed.opened(answer.body)
    if isinstance(genuine.reply, Failure):
        assert answer.status == genuine.reply.status
        return genuine.reply, genuine.seal
    return codec.scan(genuine.reply), genuine.seal
