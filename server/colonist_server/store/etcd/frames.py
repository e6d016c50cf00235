"""HTTP/2 frames (RFC 9113), headers (RFC 7541) and gRPC messages: bytes to values and back, no I/O.

Only what a gRPC client needs. Header tables are of size 0 on both sides, so the same bytes always
mean the same headers, and what was decoded once is remembered.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import hpack

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME_BYTES: Final = 16_384
"""The largest frame that a peer may send as long as nobody offers more; nor do we."""
MAX_HEADER_BYTES: Final = 65_536
MAX_MESSAGE_BYTES: Final = 2_147_483_647
MAX_WINDOW: Final = 2_147_483_647
DEFAULT_WINDOW: Final = 65_535

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

_FRAME: Final = struct.Struct(">HBBBI")
_FRAME_BYTES: Final = 9
_NUMBER: Final = 0x7FFF_FFFF
_SETTING: Final = struct.Struct(">HI")
_PREFIX: Final = struct.Struct(">BI")
PREFIX_BYTES: Final = 5
_LENGTH_7: Final = 0x7F
_PRIORITY_BYTES: Final = 5


class Kind(IntEnum):
    """Of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """What a peer may set."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Reason(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    FRAME_SIZE_ERROR = 6
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Code(IntEnum):
    """Of a gRPC status, those that are told apart."""

    OK = 0
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    INTERNAL = 13
    UNAVAILABLE = 14


class CallError(Exception):
    """A call was not answered, or refused: a gRPC code, and in words why."""

    def __init__(self, code: int, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class ProtocolError(Exception):
    """The peer does not keep to HTTP/2: its connection is of no more use."""

    def __init__(self, words: str, reason: Reason = Reason.PROTOCOL_ERROR) -> None:
        super().__init__(words)
        self.reason = reason


class Frame(NamedTuple):
    """One frame, its padding not yet taken off."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: Kind, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """A frame to send."""
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*each) for each in values.items()))


def read_settings(payload: bytes) -> Iterator[tuple[int, int]]:
    """What a SETTINGS frame sets, in order. Raises `ProtocolError`."""
    if len(payload) % _SETTING.size:
        raise ProtocolError("SETTINGS of an odd length", Reason.FRAME_SIZE_ERROR)
    for number, value in _SETTING.iter_unpack(payload):
        if number == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ProtocolError("a window larger than 2^31-1", Reason.FLOW_CONTROL_ERROR)
        if number == Setting.MAX_FRAME_SIZE and not MAX_FRAME_BYTES <= value < 1 << 24:
            raise ProtocolError(f"frames of {value} bytes")
        yield number, value


def number(payload: bytes) -> int:
    """The one number that WINDOW_UPDATE and RST_STREAM hold. Raises `ProtocolError`."""
    if len(payload) != 4:  # noqa: PLR2004 - 32 bits
        raise ProtocolError("a frame of another length than 4", Reason.FRAME_SIZE_ERROR)
    return int.from_bytes(payload, "big")


def window_update(stream: int, size: int) -> bytes:
    """Let the peer send so much more."""
    return frame(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int, reason: Reason) -> bytes:
    """Break off a stream."""
    return frame(Kind.RST_STREAM, 0, stream, reason.to_bytes(4, "big"))


def goaway(reason: Reason, words: str = "") -> bytes:
    """Say that a connection is left; the peer has never opened a stream."""
    return frame(Kind.GOAWAY, 0, 0, bytes(4) + reason.to_bytes(4, "big") + words.encode()[:200])


def unpadded(got: Frame) -> bytes:
    """What a DATA or HEADERS frame carries. Raises `ProtocolError`."""
    _, flags, _, payload = got
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolError("no length of a padding", Reason.FRAME_SIZE_ERROR)
        start, end = 1, end - payload[0]
    if flags & PRIORITY and got.kind == Kind.HEADERS:
        start += _PRIORITY_BYTES
    if start > end:
        raise ProtocolError("more padding than frame")
    return payload[start:end]


class Reader:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are now whole. Raises `ProtocolError`."""
        if self._rest:
            data = self._rest + data
        found: list[Frame] = []
        at, size = 0, len(data)
        while size - at >= _FRAME_BYTES:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            length = high << 8 | low
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes", Reason.FRAME_SIZE_ERROR)
            end = at + _FRAME_BYTES + length
            if end > size:
                break
            found.append(Frame(kind, flags, stream & _NUMBER, data[at + _FRAME_BYTES : end]))
            at = end
        self._rest = data[at:]
        return found


# -- headers


@functools.lru_cache(maxsize=128)
def request_headers(
    scheme: str, authority: str, path: str, metadata: tuple[tuple[str, str], ...]
) -> bytes:
    """The headers of a call, all as literals that no table takes up."""
    # The names with a number stand in HPACK's static table.
    parts = [b"\x83", b"\x87" if scheme == "https" else b"\x86"]  # :method POST, :scheme
    parts += [b"\x04", _text(path), b"\x01", _text(authority)]
    parts += [b"\x0f\x10", _text("application/grpc")]  # content-type
    for name, value in (("te", "trailers"), *metadata):
        parts += [b"\x00", _text(name), _text(value)]
    return b"".join(parts)


def _text(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    if size < _LENGTH_7:
        return bytes([size]) + data
    head = bytearray([_LENGTH_7])
    size -= _LENGTH_7
    while size >= 128:  # noqa: PLR2004 - seven bits a byte
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + data


@functools.lru_cache(maxsize=64)
def read_headers(block: bytes) -> dict[str, str]:
    """The headers in a whole block; not to be changed. Raises `ProtocolError`."""
    decoder = hpack.Decoder(MAX_HEADER_BYTES)
    decoder.header_table_size = 0
    decoder.max_allowed_table_size = 0
    try:
        pairs = decoder.decode(block, raw=True)
    except hpack.HPACKError as error:
        raise ProtocolError(f"headers: {error}", Reason.COMPRESSION_ERROR) from None
    return {bytes(name).decode("latin-1"): bytes(value).decode("latin-1") for name, value in pairs}


_STATUS_DIGITS: Final = 4


def status(headers: dict[str, str]) -> CallError | None:
    """What the last headers of an answer say: None if all is well."""
    text = headers.get("grpc-status", "")
    if not (text.isascii() and text.isdigit() and len(text) <= _STATUS_DIGITS):
        told = headers.get(":status", "200")
        words = "etcd ended the call without a status" if told == "200" else f"HTTP status {told}"
        return CallError(Code.UNKNOWN, words)
    if not int(text):
        return None
    message = unquote_to_bytes(headers.get("grpc-message", "").encode("latin-1"))
    return CallError(int(text), message.decode(errors="replace"))


def is_answer(headers: dict[str, str]) -> bool:
    """Whether the first headers promise messages of gRPC."""
    kind = headers.get("content-type", "")
    return headers.get(":status") == "200" and kind.startswith("application/grpc")


# -- messages


def message(data: bytes) -> bytes:
    """A message to send."""
    return _PREFIX.pack(0, len(data)) + data


class Messages:
    """Joins what DATA frames carry into messages."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._wanted = PREFIX_BYTES

    @property
    def is_cut(self) -> bool:
        """Whether a part of a message is here, and the rest is not."""
        return bool(self._parts)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are now whole. Raises `CallError`."""
        if self._parts:
            self._parts += data
            if len(self._parts) < self._wanted:
                return []
            data = bytes(self._parts)
            self._parts.clear()
        found: list[bytes] = []
        at, size = 0, len(data)
        self._wanted = PREFIX_BYTES
        while size - at >= PREFIX_BYTES:
            packed, length = _PREFIX.unpack_from(data, at)
            if packed or length > MAX_MESSAGE_BYTES:
                raise CallError(Code.INTERNAL, "etcd sent a message packed, or beyond 2 GiB")
            self._wanted = PREFIX_BYTES + length
            if size - at < self._wanted:
                break
            found.append(data[at + PREFIX_BYTES : at + self._wanted])
            at += self._wanted
            self._wanted = PREFIX_BYTES
        if at < size:
            self._parts += data[at:]
        return found
