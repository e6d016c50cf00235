"""The environment that existing Colonies SDKs read, as lines for a shell (COLONIES-RPC 1.9)."""

from __future__ import annotations

import shlex
from typing import Final
from urllib.parse import urlsplit

from colonist_cli.exits import CliError, Exit
from colonist_cli.settings import Role, Settings

_KEYS: Final = {
    "COLONIES_PRVKEY": Role.MEMBER,
    "COLONIES_COLONY_PRVKEY": Role.COLONY,
    "COLONIES_SERVER_PRVKEY": Role.SERVER,
}


def lines(settings: Settings, *, are_keys_shown: bool) -> list[str]:
    """`export NAME=VALUE` for everything that is known."""
    found = [f"export {name}={shlex.quote(text)}" for name, text in _plain(settings).items()]
    for name, role in _KEYS.items():
        if not settings.knows(role):
            continue
        if are_keys_shown:
            found.append(f"export {name}={settings.signer(role).identity.reveal()}")
        else:
            found.append(f"# {name} is left out on a terminal: --reveal, or eval the output")
    return found


def _plain(settings: Settings) -> dict[str, str]:
    parts = urlsplit(settings.server)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CliError(Exit.USAGE, "the server's URL is not http[s]://host[:port]")
    is_tls = "true" if parts.scheme == "https" else "false"
    default = 443 if parts.scheme == "https" else 80
    found = {
        "COLONIES_SERVER_HOST": parts.hostname,
        "COLONIES_SERVER_PORT": str(parts.port or default),
        "COLONIES_SERVER_HTTP_PORT": str(parts.port or default),
        "COLONIES_TLS": is_tls,
        "COLONIES_SERVER_TLS": is_tls,
        "COLONIES_COLONY_NAME": settings.colony,
    }
    if settings.server_id:
        found["COLONIST_SERVER_ID"] = settings.server_id
    if settings.executor_type:
        found["COLONIES_EXECUTOR_TYPE"] = settings.executor_type
    if settings.executor_name:
        found["COLONIES_EXECUTOR_NAME"] = settings.executor_name
    return found
