"""Amounts of CPU and memory: COLONIES-RPC section 4.2, every unit of its table, one meaning each.

CPU is counted in milli-cores, memory in bytes. `Ki Mi Gi Ti` (with or without `B`) are powers of
1024, `K M G T` (with or without `B` or `b`) powers of 1000; a bare number is cores, or bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from colonist_protocol.errors import InvalidValueError

_MEBIBYTE: Final = 1_048_576
_LIMIT: Final = 2**63 - 1
_MILLI: Final = 1000
_AMOUNT: Final = re.compile(r"([0-9]{1,19})([A-Za-z]{0,3})", re.ASCII)
_POWERS: Final = {"K": 1, "M": 2, "G": 3, "T": 4}


@lru_cache(maxsize=4096)
def parse_cpu(text: str) -> int:
    """Milli-cores of `"1500m"` or `"2"`; 0 for "". Raises `InvalidValueError`."""
    if not text:
        return 0
    amount, unit = _split(text, "CPU")
    if unit not in ("m", ""):
        raise InvalidValueError(f"Error converting CPU to int: {text[:40]!r} has an unknown unit")
    return _bounded(amount if unit else amount * _MILLI, text)


@lru_cache(maxsize=4096)
def parse_memory(text: str) -> int:
    """Bytes of `"1Gi"`, `"500MB"`, `"4096"`; 0 for "". Raises `InvalidValueError`."""
    if not text:
        return 0
    amount, unit = _split(text, "memory")
    return _bounded(amount * _factor(unit, text), text)


def cpu_text(millicores: int) -> str:
    """The normal form, `"1500m"`."""
    return f"{millicores}m"


def memory_text(amount: int) -> str:
    """The normal form: whole MiB, rounded down, `"1024Mi"`."""
    return f"{amount // _MEBIBYTE}Mi"


def _split(text: str, what: str) -> tuple[int, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"Error converting {what} to int: {text[:40]!r} is no amount")
    return int(match[1]), match[2]


def _factor(unit: str, text: str) -> int:
    if not unit:
        return 1
    power = _POWERS.get(unit[0])
    if power is not None:
        if unit[1:] in ("i", "iB"):
            return 1024**power
        if unit[1:] in ("", "B", "b"):
            return 1000**power
    raise InvalidValueError(f"Error converting memory to int: {text[:40]!r} has an unknown unit")


def _bounded(amount: int, text: str) -> int:
    if amount > _LIMIT:
        raise InvalidValueError(f"{text[:40]!r} is more than 64 bits hold")
    return amount
