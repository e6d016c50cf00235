"""What may be published as a reply, and how a plain reply gets the name of its request.

A sealed reply names its request by `re`, under the server's signature, and passes byte for byte. A
plain one names nothing, so the bridge adds the unsigned member `"req"` (docs/adr/0003), at the end
and in one fixed form, which a device can take off again.
"""

from __future__ import annotations

from dataclasses import dataclass

from colonist_protocol import codec
from colonist_protocol.envelope import ReplyEnvelope
from colonist_protocol.errors import InvalidMessageError, TooLargeError
from colonist_protocol.seal import ReplySeal, read_reply_seal


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A body that is a server's reply in form; nothing here can tell whose it is."""

    body: bytes
    is_error: bool
    seal: ReplySeal | None = None

    def is_of(self, device: str, re: str, index: int) -> bool:
        """Whether it says that it answers that request; a plain reply says nothing."""
        seal = self.seal
        return seal is None or (seal.to, seal.re, seal.index) == (device, re, index)

    def named(self, tag: str) -> bytes:
        """The bytes to publish to the device whose request has this name."""
        if self.seal is not None:
            return self.body
        return self.body.rstrip()[:-1] + b',"req":"%b"}' % tag.encode()


def read_reply(body: bytes, *, max_bytes: int) -> Reply:
    """Check size and strict form. Raises `TooLargeError`, `MalformedError`.

    A captive portal answers 200 as well; only what has the form of a reply is one.
    """
    if len(body) > max_bytes:
        raise TooLargeError(f"a reply of {len(body)} bytes is over the bridge's {max_bytes}")
    tree = codec.scan(body)
    reply = codec.convert(body, tree, ReplyEnvelope, "reply")
    if "req" in tree or not reply.payloadtype:
        raise InvalidMessageError("no reply of a server: it names a request, or has no type")
    seal = read_reply_seal(reply.seal) if "seal" in tree else None
    return Reply(body=body, is_error=reply.error, seal=seal)
