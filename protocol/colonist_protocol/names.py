"""Names of colonies, executors, users and functions; free text that is matched or shown."""

from __future__ import annotations

import re
from typing import Final

from colonist_protocol.errors import IdFormError, NameFormError
from colonist_protocol.identity import is_id

MAX_NAME_CHARS: Final = 128
MAX_TEXT_CHARS: Final = 1024

# Control characters, line separators, what turns the direction of writing, byte order mark (logs,
# terminals), half characters (no JSON).
_UNFIT: Final = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
# Nor ":" (it poisoned the reference server: COLONIES-RPC P4), nor "/" and "\" (topics and paths).
_NAME: Final = re.compile(rf"[^ \xa0:/\\{_UNFIT}]([^:/\\{_UNFIT}]*[^ \xa0:/\\{_UNFIT}])?")
_CONTROL: Final = re.compile(f"[{_UNFIT}]")


def check_name(name: str, what: str) -> str:
    """The name, if it may name something. Raises `NameFormError`."""
    if not name:
        raise NameFormError(f"{what} is empty")
    if len(name) > MAX_NAME_CHARS:
        raise NameFormError(f"{what} is longer than {MAX_NAME_CHARS} characters")
    if _NAME.fullmatch(name) is None:
        raise NameFormError(f"{what} {name[:64]!a} holds a character that no name may hold there")
    return name


def is_text(text: str) -> bool:
    """Whether `check_text` would let it pass."""
    return len(text) <= MAX_TEXT_CHARS and _CONTROL.search(text) is None


def check_text(text: str, what: str) -> str:
    """A short free text without control characters. Raises `NameFormError`."""
    if len(text) > MAX_TEXT_CHARS:
        raise NameFormError(f"{what} is longer than {MAX_TEXT_CHARS} characters")
    if _CONTROL.search(text):
        raise NameFormError(f"{what} holds a control character")
    return text


def check_id(text: str, what: str) -> str:
    """An identity's id. Raises `IdFormError`."""
    if not is_id(text):
        raise IdFormError(f"invalid {what} length or form: not 64 lower-case hex characters")
    return text
