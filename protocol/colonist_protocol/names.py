"""Names of colonies, executors, users and functions; free text that is matched or shown."""

from __future__ import annotations

import re
from typing import Final

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import is_id

MAX_NAME_CHARS: Final = 128
MAX_TEXT_CHARS: Final = 1024

# No ":" (it poisoned the reference server: COLONIES-RPC P4), no "/" (topics and paths), no control
# character (logs and terminals).
_NAME: Final = re.compile(r"[^\x00-\x20\x7f-\xa0:/\\][^\x00-\x1f\x7f-\x9f:/\\]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_name(name: str, what: str) -> str:
    """The name, if it may name something. Raises `InvalidValueError`."""
    if not name:
        raise InvalidValueError(f"{what} is empty")
    if len(name) > MAX_NAME_CHARS:
        raise InvalidValueError(f"{what} is longer than {MAX_NAME_CHARS} characters")
    if _NAME.fullmatch(name) is None or name.endswith(" "):
        raise InvalidValueError(f"{what} {name[:64]!r} holds a character that no name may hold")
    return name


def check_text(text: str, what: str) -> str:
    """A short free text without control characters. Raises `InvalidValueError`."""
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidValueError(f"{what} is longer than {MAX_TEXT_CHARS} characters")
    if text and _CONTROL.search(text):
        raise InvalidValueError(f"{what} holds a control character")
    return text


def check_id(text: str, what: str) -> str:
    """An identity's id. Raises `InvalidValueError`."""
    if not is_id(text):
        raise InvalidValueError(f"invalid {what} length or form: not 64 lower-case hex characters")
    return text
