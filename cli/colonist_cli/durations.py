"""Lengths of time as people type them: `10s`, `5m`, `1h30m`, `2d`. Pure."""

from __future__ import annotations

import re
from typing import Final

from colonist_cli.exits import CliError, Exit

_LENGTH: Final = re.compile(
    r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s?)?"
)
_SECONDS: Final = (86_400, 3_600, 60, 1)


def seconds_of(text: str, what: str) -> int:
    """A length of a second or more, in seconds; a bare number means them. Raises `CliError`."""
    match = _LENGTH.fullmatch(text.strip())
    parts = match.groups("0") if match else ("0",) * len(_SECONDS)
    total = sum(int(part) * unit for part, unit in zip(parts, _SECONDS, strict=True))
    if not total:
        raise CliError(Exit.USAGE, f"{what}: {text[:40]!r} is no length of time, such as 1h30m")
    return total


def shown(seconds: int) -> str:
    """The shortest way to type it."""
    if seconds <= 0:
        return f"{seconds}s"
    parts: list[str] = []
    for unit, letter in zip(_SECONDS, "dhms", strict=True):
        count, seconds = divmod(seconds, unit)
        if count:
            parts.append(f"{count}{letter}")
    return "".join(parts)
