"""The environment variables that the Colonies SDKs read: COLONIES-RPC section 1.9.

`COLONIST_SERVER_ID` is ours: the id of the server whose replies are believed (`COLONIES_SERVER_ID`
names the server's *owner*). The environment comes in as a mapping; only a program's `main` reads
the real one. Keys become identities at once, so no text of a key is kept anywhere. Each `*_PRVKEY`
may be given as `*_PRVKEY_FILE` instead, a file of mode 0600 or the name of a systemd credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from colonist_client import keyfile
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity, is_id

DEFAULT_PORT: Final = 50080
SERVER_ID: Final = "COLONIST_SERVER_ID"

_YES: Final = frozenset({"true", "1", "yes", "on"})
_NO: Final = frozenset({"false", "0", "no", "off", ""})
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says; None and "" where it says nothing."""

    url: str | None = None
    colony: str = ""
    executor_name: str = ""
    executor_type: str = ""
    identity: Identity | None = None
    colony_identity: Identity | None = None
    server_identity: Identity | None = None
    server_id: str = ""


def from_environment(environment: Mapping[str, str], custody: Custody | None = None) -> Settings:
    """Read the variables. Raises `InvalidValueError`, which names the variable, never a key."""
    custody = custody or Custody(environment)
    return Settings(
        url=_url(environment),
        colony=environment.get("COLONIES_COLONY_NAME", ""),
        executor_name=environment.get("COLONIES_EXECUTOR_NAME", ""),
        executor_type=environment.get("COLONIES_EXECUTOR_TYPE", ""),
        identity=_identity(environment, "COLONIES_PRVKEY", custody),
        colony_identity=_identity(environment, "COLONIES_COLONY_PRVKEY", custody),
        server_identity=_identity(environment, "COLONIES_SERVER_PRVKEY", custody),
        server_id=_server_id(environment),
    )


def _server_id(environment: Mapping[str, str]) -> str:
    text = environment.get(SERVER_ID, "")
    if text and not is_id(text):
        raise InvalidValueError(f"{SERVER_ID} is not 64 lower-case hex characters")
    return text


def _url(environment: Mapping[str, str]) -> str | None:
    host = environment.get("COLONIES_SERVER_HOST", "")
    if not host:
        return None
    scheme = "https" if _is_tls(environment) else "http"
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{scheme}://{shown}:{_port(environment)}"


def _is_tls(environment: Mapping[str, str]) -> bool:
    for name in ("COLONIES_TLS", "COLONIES_SERVER_TLS", "COLONIES_SERVER_HTTP_TLS"):
        text = environment.get(name)
        if text is None:
            continue
        if text.lower() in _YES:
            return True
        if text.lower() not in _NO:
            raise InvalidValueError(f"{name} is neither true nor false: {text[:20]!r}")
    return False


def _port(environment: Mapping[str, str]) -> int:
    for name in ("COLONIES_SERVER_PORT", "COLONIES_SERVER_HTTP_PORT"):
        text = environment.get(name, "")
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and 0 < int(text) <= _MAX_PORT):
            raise InvalidValueError(f"{name} is no port: {text[:20]!r}")
        return int(text)
    return DEFAULT_PORT


def _identity(environment: Mapping[str, str], name: str, custody: Custody) -> Identity | None:
    text = environment.get(name, "")
    path = environment.get(f"{name}_FILE", "")
    if text and path:
        raise InvalidValueError(f"both {name} and {name}_FILE are set")
    if path:
        try:
            return keyfile.read(custody.find(path), custody)
        except InvalidValueError as error:
            raise InvalidValueError(f"{name}_FILE: {error}") from None
    if not text:
        return None
    try:
        return Identity.from_hex(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{name}: {error}") from None
