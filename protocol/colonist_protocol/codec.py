"""Strict JSON and base64 in, canonical bytes out.

Strict means: UTF-8 (RFC 3629), one value (RFC 8259), no NaN or infinite number, no member twice, no
lone surrogate, at most `MAX_DEPTH` levels. Unknown members are let pass. A member that is `null`
counts as missing, as it does for the existing SDKs, but never inside a value that the protocol only
carries (`args`, `out`, ...).
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from colonist_protocol.errors import (
    Base64Error,
    DuplicateMemberError,
    InvalidMessageError,
    NotJsonError,
    TooDeepError,
)

MAX_DEPTH: Final = 32

T = TypeVar("T")

# Members whose value is the user's own JSON: a null in there means null.
_CARRIED: Final = frozenset({"args", "kwargs", "out", "in"})


def decode(data: bytes, kind: type[T], name: str) -> T:
    """Read strict JSON as `kind`; `name` is for the error text.

    Raises `NotJsonError`, `DuplicateMemberError`, `TooDeepError`, `InvalidMessageError`.
    """
    return convert(data, scan(data), kind, name)


def convert(data: bytes, tree: Any, kind: type[T], name: str) -> T:
    """Read bytes that were scanned, with the value that `scan` returned for them, as `kind`."""
    try:
        return _decoder(kind).decode(data)
    except msgspec.ValidationError as error:
        if b"null" not in data:
            raise InvalidMessageError(f"Failed to parse {name}: {error}") from None
    except msgspec.DecodeError as error:
        raise NotJsonError(f"Failed to parse {name}, invalid JSON: {error}") from None
    try:
        return _decoder(kind).decode(json.dumps(_without_nulls(tree), ensure_ascii=False))
    except msgspec.ValidationError as error:
        raise InvalidMessageError(f"Failed to parse {name}: {error}") from None


def encode(value: object) -> bytes:
    """Compact UTF-8 JSON."""
    return _encode(value)


def scan(data: bytes) -> Any:
    """Check that the bytes are strict JSON, also inside values that are only carried; the value."""
    try:
        text = data.decode()
        tree = _SCANNER.decode(text)
    except UnicodeDecodeError:
        raise NotJsonError("invalid JSON: not UTF-8") from None
    except RecursionError:
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        raise NotJsonError(f"invalid JSON: {error.msg} at {error.pos}") from None
    except ValueError:
        raise NotJsonError("invalid JSON: a number is out of range") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(tree):
        raise TooDeepError(f"invalid JSON: nested deeper than {MAX_DEPTH}")
    if "\\u" in text:
        _refuse_lone_surrogates(tree)
    return tree


def from_base64(text: str) -> bytes:
    """Decode standard, padded base64; whatever does not encode back to the same text is refused."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Base64Error("invalid base64: not standard, padded base64") from None
    if binascii.b2a_base64(data, newline=False) != text.encode():
        raise Base64Error("invalid base64: bits beyond the last byte are set")
    return data


def to_base64(data: bytes) -> str:
    """Standard, padded base64."""
    return binascii.b2a_base64(data, newline=False).decode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DuplicateMemberError(f"invalid JSON: member {twice[:64]!r} stands twice")
    return members


def _refuse_constant(text: str) -> NoReturn:
    raise NotJsonError(f"invalid JSON: {text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJsonError("invalid JSON: a number is out of range")
    return number


_SCANNER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
)


def _is_deep(tree: Any) -> bool:
    level = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return False
    return any(isinstance(node, (dict, list)) for node in level)


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _refuse_lone_surrogates(tree: Any) -> None:
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise NotJsonError("invalid JSON: a lone surrogate") from None


def _without_nulls(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {
            name: value if name in _CARRIED else _without_nulls(value)
            for name, value in tree.items()
            if value is not None
        }
    if isinstance(tree, list):
        return [_without_nulls(value) for value in tree]
    return tree


_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind)
