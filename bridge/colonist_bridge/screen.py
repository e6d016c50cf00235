"""The checks before anything else: size, strict form, recovered signer = the id in the topic.

Seals are read by the one strict reader of all; what is forwarded is what came, byte for byte.

So nobody reads another's reply by presenting a captured request on a topic of his own. Pure: bytes
in, a request or a refusal out. Cheapest first; nothing of a refused message is kept or repeated,
except the name of the request if it could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from colonist_bridge.hint import HintCode, request_tag
from colonist_client.repeatable import ASSIGN, is_repeatable
from colonist_protocol.claims import Enrol
from colonist_protocol.envelope import Envelope, authenticate, open_message, parse_request
from colonist_protocol.errors import ColonistError, SealError, TooLargeError
from colonist_protocol.process import AssignProcess, GetProcess
from colonist_protocol.seal import MAX_INDEX, read_request_seal

ENROL: Final = Enrol.msgtype()
ENROL_TOPIC: Final = "enrol"
MAX_ENROLMENT_BYTES: Final = 16_384

_HELD: Final[dict[str, type[AssignProcess | GetProcess]]] = {
    kind.msgtype(): kind for kind in (AssignProcess, GetProcess)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that may be forwarded. `hold_s`: how long the server may hold it, 0 if not.

    `re` is the digest of a sealed one, `index` which of its grants is asked for.
    """

    device: str
    body: bytes
    tag: str
    kind: str
    hold_s: float
    is_repeatable: bool
    re: str = ""
    index: int = 0
    signer: str = ""
    """Who signed it, where that is not the id in the topic: of what nobody's account may send."""

    @property
    def caller(self) -> str:
        """Whom the server answers."""
        return self.signer or self.device

    @property
    def is_held(self) -> bool:
        """Whether the server may hold the reply back."""
        return self.hold_s > 0

    @property
    def is_poll(self) -> bool:
        """Whether it does so until there is work; a device has one such request."""
        return self.is_held and self.kind == ASSIGN


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A message that is not forwarded, and what the sender may be told."""

    code: str
    tag: str


def screen(device: str, body: bytes, *, max_bytes: int) -> Request | Refusal:
    """Check one message on `{prefix}/{device}/req`. Never raises."""
    tag = ""
    try:
        if len(body) > max_bytes:
            raise TooLargeError(f"{len(body)} bytes are over {max_bytes}")
        envelope = parse_request(body)
        tag = _tag(envelope)
        signed = authenticate(envelope, _seal(envelope))
    except ColonistError as error:
        return Refusal(code=error.code, tag=tag)
    if signed.caller != device:
        return Refusal(code=HintCode.NOT_YOURS, tag=tag)
    return Request(
        device=device,
        body=body,
        tag=tag,
        kind=envelope.payloadtype,
        hold_s=_hold_s(envelope),
        is_repeatable=is_repeatable(envelope.payloadtype, is_sealed=bool(envelope.seal)),
        re=signed.digest.hex() if envelope.seal else "",
        index=envelope.index,
    )


def screen_enrolment(body: bytes, *, max_bytes: int) -> Request | Refusal:
    """Check one message on `{prefix}/enrol/req`: a sealed `enrolmsg` of anybody. Never raises."""
    tag = ""
    try:
        if len(body) > min(max_bytes, MAX_ENROLMENT_BYTES):
            raise TooLargeError(f"{len(body)} bytes are over {MAX_ENROLMENT_BYTES}")
        envelope = parse_request(body)
        tag = _tag(envelope)
        if envelope.payloadtype != ENROL or not envelope.seal:
            return Refusal(code=HintCode.NOT_YOURS, tag=tag)
        signed = authenticate(envelope, _seal(envelope))
    except ColonistError as error:
        return Refusal(code=error.code, tag=tag)
    return Request(
        device=ENROL_TOPIC,
        body=body,
        tag=tag,
        kind=envelope.payloadtype,
        hold_s=0.0,
        is_repeatable=True,
        re=signed.digest.hex(),
        signer=signed.caller,
    )


def _seal(envelope: Envelope) -> bytes:
    """The JSON of a seal, read strictly; empty for a plain request. Raises `SealError`."""
    if envelope.index and not (envelope.seal and envelope.payloadtype == ASSIGN):
        raise SealError("only a sealed assign has an index")
    if not 0 <= envelope.index <= MAX_INDEX:
        raise SealError("the index is no unsigned number of 32 bits")
    if not envelope.seal:
        return b""
    return read_request_seal(envelope.seal, envelope.payloadtype)[1]


def _tag(envelope: Envelope) -> str:
    tag = request_tag(envelope.signature)
    return tag if tag.isascii() and tag.isalnum() else ""


def _hold_s(envelope: Envelope) -> float:
    """The timeout of an assign, or of a read that waits for a change.

    What cannot be read is for the server to refuse, at once.
    """
    kind = _HELD.get(envelope.payloadtype)
    if kind is None:
        return 0.0
    try:
        message = open_message(envelope, kind)
    except ColonistError:
        return 0.0
    if isinstance(message, GetProcess) and message.waitwhile < 0:
        return 0.0
    return max(0.0, float(message.timeout))
