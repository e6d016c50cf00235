"""Strict JSON and base64 in, canonical bytes out.

Strict means: UTF-8 (RFC 3629), one value (RFC 8259), no NaN or infinite number, no member twice, no
lone surrogate, at most `MAX_DEPTH` levels. Unknown members are let pass. A member that is `null`
counts as missing, as it does for the existing SDKs, but never inside a value that the protocol only
carries (`args`, `out`, ...): that keeps the very text that it was sent with.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from colonist_protocol.errors import (
    Base64Error,
    DuplicateMemberError,
    InvalidMessageError,
    LoneSurrogateError,
    MissingMemberError,
    NotJsonError,
    NotUtf8Error,
    NumberError,
    OutOfBoundsError,
    TooDeepError,
    WrongTypeError,
)

MAX_DEPTH: Final = 32
# With its sign. The JSON readers of CPython and of msgspec stop there too.
MAX_INTEGER_CHARS: Final = 4300

T = TypeVar("T")
_Text = Callable[[bytes], bytes]
_Json = dict[str, "_Json"] | list["_Json"] | str | float | None

_NULL: Final = b"null"
# The only spellings of a colon that hold none.
_ESCAPED_COLON: Final = re.compile(rb"\\u003a", re.IGNORECASE)
_MISSING: Final = re.compile("missing required field `(.+?)`")
_BOUND: Final = re.compile("Expected `[a-z]+` [<>]=|out of range")


def decode(data: bytes, kind: type[T], name: str) -> T:
    """Read strict JSON as `kind`; `name` is for the error text.

    Raises `NotJsonError`, `DuplicateMemberError`, `TooDeepError`, `InvalidMessageError`.
    """
    return convert(data, scan(data), kind, name)


def convert(data: bytes, tree: Any, kind: type[T], name: str) -> T:
    """Read bytes that `scan` let pass as `kind`; `tree`, its answer, is the proof of that.

    Raises `InvalidMessageError`.
    """
    decoder = _DECODERS[kind]
    try:
        value: T = decoder.decode(data)
    except msgspec.ValidationError as error:
        if _NULL not in data:
            raise _invalid(name, error) from None
    else:
        return value
    try:
        value = decoder.decode(_STRIPPERS[kind](data))
    except msgspec.ValidationError as error:
        raise _invalid(name, error) from None
    return value


def glance(data: bytes, kind: type[T], name: str) -> T:
    """Read what `kind` names, make nothing of the rest, and check next to nothing.

    For what decides whether a large message is worth `decode`, whose errors it does not find.
    Raises `NotJsonError`, `TooDeepError`, `InvalidMessageError`.
    """
    decoder = _DECODERS[kind]
    try:
        value: T = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _invalid(name, error) from None
    except msgspec.DecodeError as error:
        raise NotJsonError(f"invalid JSON: {error}") from None
    except UnicodeDecodeError:
        raise NotUtf8Error("invalid JSON: not UTF-8") from None
    except RecursionError:
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}") from None
    return value


def encode(value: object) -> bytes:
    """Compact UTF-8 JSON."""
    return _encode(value)


def members(data: bytes) -> dict[str, msgspec.Raw]:
    """The members of an object that `scan` let pass, each with its own text."""
    return _MEMBERS.decode(data)


def scan(data: bytes) -> Any:
    """Check that the bytes are strict JSON, also inside values that are only carried; the value.

    Raises `NotJsonError`, `DuplicateMemberError`, `TooDeepError`.
    """
    try:
        tree = _READER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _explain(data)
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_deep(tree):
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}")
    # A member has a colon; of two with one name the reader keeps one; and nothing else can lose a
    # colon on the way through the reader. 4.6 us for a submit; looking at all names takes 7.5.
    if _encode(tree).count(b":") != data.count(b":") or (
        b"\\" in data and _ESCAPED_COLON.search(data)
    ):
        _SCANNER.decode(data.decode())
    return tree


def from_base64(text: str) -> bytes:
    """Decode standard, padded base64; whatever does not encode back to the same text is refused."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise Base64Error("invalid base64: not standard, padded base64") from None
    if binascii.b2a_base64(data, newline=False) != text.encode():
        raise Base64Error("invalid base64: bits beyond the last byte are set")
    return data


def to_base64(data: bytes) -> str:
    """Standard, padded base64."""
    return binascii.b2a_base64(data, newline=False).decode()


def _invalid(name: str, error: msgspec.ValidationError) -> InvalidMessageError:
    text = str(error)
    missing = _MISSING.search(text)
    if missing:
        return MissingMemberError(f"Failed to parse {name}, {missing[1]} is nil: {text}")
    kind = OutOfBoundsError if _BOUND.search(text) else WrongTypeError
    return kind(f"Failed to parse {name}, invalid JSON: {text}")


def _explain(data: bytes) -> NoReturn:
    """Say what is wrong with bytes that the reader refused. Slow, and off the common path."""
    try:
        tree = _SCANNER.decode(data.decode())
    except UnicodeDecodeError as error:
        raise NotUtf8Error(f"invalid JSON: not UTF-8 at {error.start}") from None
    except RecursionError:
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        raise NotJsonError(f"invalid JSON: {error.msg} at {error.pos}") from None
    if _is_deep(tree):
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}")
    # Of what the reader refuses, the scanner lets only this pass.
    raise LoneSurrogateError("invalid JSON: a lone surrogate")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateMemberError(f"invalid JSON: member {twice[:64]!r} stands twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise NumberError(f"invalid JSON: {text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NumberError("invalid JSON: a number is out of range")
    return number


def _short(text: str) -> int:
    if len(text) > MAX_INTEGER_CHARS:
        raise NumberError(f"invalid JSON: an integer of more than {MAX_INTEGER_CHARS} characters")
    return int(text)


_SCANNER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_short,
)


def _is_deep(tree: _Json) -> bool:
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return any(isinstance(node, (dict, list)) for node in level)


def _children(node: _Json) -> Collection[_Json]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _stripper(kind: inspect.Type) -> _Text | None:
    """A function that leaves out the members of such a value that are null; None: there are none.

    Follows the type, so a null in a carried value stays, and so does every other byte of it.
    """
    if isinstance(kind, inspect.StructType):
        return _struct_stripper(kind)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_stripper, kind.types)), None)
    if isinstance(kind, inspect.DictType):
        return _dict_stripper(_stripper(kind.value_type))
    if isinstance(kind, inspect.ListType):
        item = _stripper(kind.item_type)
        return _list_stripper(item) if item else None
    return None


def _struct_stripper(kind: inspect.StructType) -> _Text:
    names = [(field.encode_name, _stripper(field.type)) for field in kind.fields]
    if kind.tag_field:
        names.append((kind.tag_field, None))
    plan = [(name, _encode(name) + b":", inner) for name, inner in names]

    def strip(data: bytes) -> bytes:
        found = _of_kind(_MEMBERS, data)
        if found is None:
            return data
        parts: list[bytes] = []
        for name, prefix, inner in plan:
            raw = found.get(name)
            if raw is None or (text := bytes(raw)) == _NULL:
                continue
            parts.append(prefix + (inner(text) if inner else text))
        return b"{" + b",".join(parts) + b"}"

    return strip


def _dict_stripper(inner: _Text | None) -> _Text:
    def strip(data: bytes) -> bytes:
        found = _of_kind(_MEMBERS, data)
        if found is None:
            return data
        texts = {name: text for name, raw in found.items() if (text := bytes(raw)) != _NULL}
        if inner:
            texts = {name: inner(text) for name, text in texts.items()}
        return _encode({name: msgspec.Raw(text) for name, text in texts.items()})

    return strip


def _list_stripper(inner: _Text) -> _Text:
    def strip(data: bytes) -> bytes:
        found = _of_kind(_ITEMS, data)
        return (
            data if found is None else b"[" + b",".join(inner(bytes(raw)) for raw in found) + b"]"
        )

    return strip


def _of_kind(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        return None  # not the kind of value that the type wants: the strict decoder will say so


class _Decoders(dict[Any, msgspec.json.Decoder[Any]]):
    def __missing__(self, kind: Any) -> msgspec.json.Decoder[Any]:
        return self.setdefault(kind, msgspec.json.Decoder(kind))


class _Strippers(dict[Any, _Text]):
    def __missing__(self, kind: Any) -> _Text:
        return self.setdefault(kind, _stripper(inspect.type_info(kind)) or bytes)


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
_READER: Final = msgspec.json.Decoder[Any]()
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_DECODERS: Final = _Decoders()
_STRIPPERS: Final = _Strippers()
