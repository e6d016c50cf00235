"""How large a store is, and how near to the size at which it takes no more writes."""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """Of a store, in bytes; quota 0: it has none. `alarms`: what it complains of."""

    size_bytes: int
    in_use_bytes: int
    quota_bytes: int = 0
    alarms: tuple[str, ...] = ()


def share(sizes: Sizes) -> float:
    """How much of the quota is taken, 0 to 1; 0 without one."""
    return sizes.size_bytes / sizes.quota_bytes if sizes.quota_bytes else 0.0


def describe(sizes: Sizes) -> str:
    """The sizes for a person."""
    text = f"{_mib(sizes.size_bytes)}, {_mib(sizes.in_use_bytes)} of it in use"
    if sizes.quota_bytes:
        text += f", {share(sizes):.0%} of the quota of {_mib(sizes.quota_bytes)}"
    return f"{text}, alarm {' '.join(sizes.alarms)}" if sizes.alarms else text


def _mib(size: int) -> str:
    return f"{size / 1_048_576:.0f} MiB"
