"""One family of errors; the HTTP status and the stable `code` are attributes of the class.

An error is raised anywhere and mapped to the wire in exactly one place (`envelope.pack_failure`). Its
text says what, which and why, and never holds a key or a message body. Statuses follow
COLONIES-RPC section 1.4; where the reference answers 500 or 400 for "not found" and "exists
already", ours are 404 and 409.
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
    """Not one UTF-8 JSON value (RFC 8259), or NaN, an infinite number or a lone surrogate in it."""

    code = "not_json"


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
    """A member is missing, has the wrong type or is out of bounds."""

    code = "invalid_message"


class MessageTypeError(MalformedError):
    """`msgtype` inside the payload is not the envelope's `payloadtype`."""

    code = "msgtype_mismatch"


class InvalidValueError(MalformedError):
    """Well formed, but the value makes no sense: a bad name, an unknown unit, a zero timeout."""

    code = "invalid_value"


class TooLargeError(ColonistError):
    """A body, payload or value is larger than the limit."""

    status = 413
    code = "too_large"


class SignatureError(ColonistError):
    """The signature has the wrong form or fits no key."""

    status = 403
    code = "bad_signature"


class UnknownMessageError(ColonistError):
    """No such message type."""

    status = 403
    code = "unknown_msgtype"


class NotSupportedError(ColonistError):
    """A message of the protocol that this server does not serve."""

    status = 501
    code = "not_supported"


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
    code = "paused"


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


class UnavailableError(ColonistError):
    """The server cannot do this now; whether it took effect may be unknown."""

    status = 503
    code = "unavailable"
