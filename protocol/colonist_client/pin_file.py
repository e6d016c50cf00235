"""A pinned server id on the disk: one line of 64 hex characters, rewritten when the pin moves.

The file is no secret, but who can write it decides whom its reader believes.
"""

from __future__ import annotations

import logging
from pathlib import Path

from colonist_client.sealer import Pin
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import is_id

log = logging.getLogger(__name__)


def pinned(server_id: str, path: Path | None) -> Pin | None:
    """The pin in the file, else `server_id`, else none. Raises `InvalidValueError`.

    A move that cannot be written down is told, and is no failure: the old id leads to the new one
    for as long as the server remembers its old keys.
    """
    found = _read(path) if path is not None else ""
    if not (found or server_id):
        if path is not None:
            raise InvalidValueError(f"{path} is not there, and no server id to begin with is set")
        return None
    return Pin(found or server_id, lambda moved: _moved(moved, path))


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValueError(f"{path}: {error}") from None
    if not is_id(text):
        raise InvalidValueError(f"{path} holds no server id: 64 lower-case hex characters")
    return text


def _moved(server_id: str, path: Path | None) -> None:
    if path is None:
        log.warning("server_key_changed id=%s: write this id into your configuration", server_id)
        return
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(f"{server_id}\n")
        draft.replace(path)
    except OSError as error:
        log.warning("server_key_changed id=%s, not written down: %s", server_id, error)
        return
    log.warning("server_key_changed id=%s file=%s", server_id, path)
