"""One family of errors; the HTTP status and the stable `code` are attributes of the class.

An error is raised anywhere and mapped to the wire in exactly one place (`envelope.pack_failure`).
Its text says what, which and why, and never holds a key or a message body. Each kind of bad input
has a class and a code of its own; the classes above it are for those who catch. Statuses follow
COLONIES-RPC section 1.4; where the reference answers 500 or 400 for "not found" and "exists
already", ours are 404 and 409. docs/reference/errors.md is made from this module.
"""

from __future__ import annotations

from typing import ClassVar


class ColonistError(Exception):
    """Anything that a caller is told."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"


class MalformedError(ColonistError):
    """The request cannot be read."""

    status = 400
    code = "malformed"


class NotJsonError(MalformedError):
    """Not one JSON value (RFC 8259). A byte order mark is none either."""

    code = "not_json"


class NotUtf8Error(NotJsonError):
    """JSON travels as UTF-8 (RFC 3629)."""

    code = "not_utf8"


class NumberError(NotJsonError):
    """NaN, an infinity, beyond a double (`1e999`), or an integer of over 4 300 characters."""

    code = "bad_number"


class LoneSurrogateError(NotJsonError):
    """An escape of half a character, such as D800 alone."""

    code = "lone_surrogate"


class DuplicateMemberError(MalformedError):
    """An object names a member twice."""

    code = "duplicate_member"


class TooDeepError(MalformedError):
    """Arrays and objects are nested deeper than the limit."""

    code = "too_deep"


class Base64Error(MalformedError):
    """Not standard, padded, canonical base64 (RFC 4648 section 4)."""

    code = "bad_base64"


class InvalidMessageError(MalformedError):
    """Strict JSON, but not this message."""

    code = "invalid_message"


class MissingMemberError(InvalidMessageError):
    """A required member is missing or `null`."""

    code = "missing_member"


class WrongTypeError(InvalidMessageError):
    """A member has the wrong JSON type: a number for a text, `1.0` for an integer."""

    code = "wrong_type"


class OutOfBoundsError(InvalidMessageError):
    """An integer is not within 64 bits, or a type of message is no short printable text."""

    code = "out_of_bounds"


class MessageTypeError(MalformedError):
    """`msgtype` inside the payload is not the envelope's `payloadtype`."""

    code = "msgtype_mismatch"


class InvalidValueError(MalformedError):
    """Well formed, but the value makes no sense, such as a zero timeout."""

    code = "invalid_value"


class NameFormError(InvalidValueError):
    """A name or text is empty, too long, or holds a character that it may not hold."""

    code = "bad_name"


class IdFormError(InvalidValueError):
    """An id is not 64 lower-case hex characters."""

    code = "bad_id"


class KeyFormError(InvalidValueError):
    """A private key is not 64 hex characters within the order of the curve."""

    code = "bad_key"


class AmountError(InvalidValueError):
    """An amount of CPU or memory is no number with a known unit, or more than 64 bits hold."""

    code = "bad_amount"


class TimeFormError(InvalidValueError):
    """Not an RFC 3339 time."""

    code = "bad_time"


class TopicError(InvalidValueError):
    """A part of an MQTT topic is not what a topic may hold."""

    code = "bad_topic"


class SealError(MalformedError):
    """The seal of a request or reply is not as designed: form, members, bounds."""

    code = "seal_invalid"


class WrongServerError(ColonistError):
    """The seal names another server: this one must not act on it."""

    status = 403
    code = "wrong_server"


class PlainRefusedError(ColonistError):
    """A request without a seal, where only sealed ones are taken."""

    status = 403
    code = "plain_refused"


class AttemptInvalidError(ColonistError):
    """The token in the seal was made for no grant of that process to this executor."""

    status = 403
    code = "attempt_invalid"


class ResultConflictError(ColonistError):
    """The attempt has another result already: it has one only."""

    status = 409
    code = "result_conflict"


class AttemptOverError(ColonistError):
    """The attempt is no more the process's newest, or the process has ended: stop."""

    status = 409
    code = "attempt_over"


class TooOldError(ColonistError):
    """So old that nobody remembers whether it took effect."""

    status = 410
    code = "too_old"


class EpochStaleError(ColonistError):
    """The seal's token is not of now: the request had no effect and never will; seal anew."""

    status = 412
    code = "epoch_stale"


class SlowError(ColonistError):
    """The request did not arrive in time."""

    status = 408
    code = "too_slow"


class TooLargeError(ColonistError):
    """A body, payload or value is larger than the limit."""

    status = 413
    code = "too_large"


class SignatureError(ColonistError):
    """The signature proves nothing; the classes below say why."""

    status = 403
    code = "bad_signature"


class SignatureLengthError(SignatureError):
    """The signature is not 130 characters long; a missing one has 0."""

    code = "signature_length"


class SignatureHexError(SignatureError):
    """The signature is not hexadecimal."""

    code = "signature_hex"


class SignatureRangeError(SignatureError):
    """r or s is not within the order of the curve, or the recovery id not 0 to 3."""

    code = "signature_range"


class HighSError(SignatureError):
    """s is over half the order: the same signature could be written in two ways."""

    code = "high_s"


class NoKeyError(SignatureError):
    """No key can have made this signature."""

    code = "signature_no_key"


class UnknownMessageError(ColonistError):
    """No such message type."""

    status = 403
    code = "unknown_msgtype"


class NotSupportedError(ColonistError):
    """A message of the protocol that this server does not serve."""

    status = 501
    code = "not_supported"


class WrongDoorError(ColonistError):
    """A message that is served, but at another way in: the text names it."""

    status = 400
    code = "wrong_door"


class AccessError(ColonistError):
    """The caller may not do this. Also the answer for what the caller may not know to exist."""

    status = 403
    code = "access_denied"


class NotFoundError(ColonistError):
    """No such object in the caller's colony."""

    status = 404
    code = "not_found"


class NoProcessError(ColonistError):
    """An assign ended without work (COLONIES-RPC section 2.6)."""

    status = 404
    code = "no_process"


class AssignPausedError(ColonistError):
    """An assign that does not wait met a paused colony."""

    status = 503
    code = "paused"


class AssignPausedTimeoutError(ColonistError):
    """An assign waited in vain for a paused colony."""

    status = 408
    code = "paused_timeout"


class ExistsError(ColonistError):
    """An object of that name or id exists already."""

    status = 409
    code = "exists"


class ConflictError(ColonistError):
    """The object's state does not allow this."""

    status = 409
    code = "conflict"


class ContendedError(ColonistError):
    """Too many others changed the same object at once; nothing was done, try again."""

    status = 503
    code = "contended"


class BusyError(ColonistError):
    """A limit is reached; try again later."""

    status = 429
    code = "busy"

    def __init__(self, text: str, *, retry_after_s: float = 0.0) -> None:
        """The advice travels with it, in seconds; 0 is none."""
        super().__init__(text)
        self.retry_after_s = retry_after_s


class UnavailableError(ColonistError):
    """The server cannot do this now; whether it took effect may be unknown."""

    status = 503
    code = "unavailable"


class CorruptRecordError(ColonistError):
    """What the server has stored of this cannot be read; its operator is told in the log."""

    status = 503
    code = "corrupt_record"
