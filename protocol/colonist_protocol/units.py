"""Amounts of CPU and memory: COLONIES-RPC section 4.2, every unit of its table, one meaning each.

CPU is counted in milli-cores, memory in bytes. `Ki Mi Gi Ti` (with or without `B`) are powers of
1024, `K M G T` (with or without `B` or `b`) powers of 1000; a bare number is cores, or bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from colonist_protocol.errors import AmountError

_MEBIBYTE: Final = 1_048_576
_LIMIT: Final = 2**63 - 1
_AMOUNT: Final = re.compile(r"([0-9]{1,19})([A-Za-z]{0,3})")
_CPU: Final = {"": 1000, "m": 1}
_MEMORY: Final = {
    "": 1,
    **{
        f"{unit}{end}": 1 << 10 * power
        for power, unit in enumerate("KMGT", 1)
        for end in ("i", "iB")
    },
    **{
        f"{unit}{end}": int(1000**power)
        for power, unit in enumerate("KMGT", 1)
        for end in ("", "B", "b")
    },
}


@lru_cache(maxsize=4096)
def parse_cpu(text: str) -> int:
    """Milli-cores of `"1500m"` or `"2"`; 0 for "". Raises `AmountError`."""
    return _parse(text, _CPU, "CPU")


@lru_cache(maxsize=4096)
def parse_memory(text: str) -> int:
    """Bytes of `"1Gi"`, `"500MB"`, `"4096"`; 0 for "". Raises `AmountError`."""
    return _parse(text, _MEMORY, "memory")


def cpu_text(millicores: int) -> str:
    """The normal form, `"1500m"`."""
    return f"{millicores}m"


def memory_text(amount: int) -> str:
    """The normal form: whole MiB, rounded down, `"1024Mi"`."""
    return f"{amount // _MEBIBYTE}Mi"


def _parse(text: str, units: dict[str, int], what: str) -> int:
    if not text:
        return 0
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise AmountError(f"Error converting {what} to int: {text[:40]!a} is no amount")
    factor = units.get(match[2])
    if factor is None:
        raise AmountError(f"Error converting {what} to int: {text[:40]!a} has an unknown unit")
    amount = int(match[1]) * factor
    if amount > _LIMIT:
        raise AmountError(f"Error converting {what} to int: {text!a} is more than 64 bits hold")
    return amount
