"""Who may read and write which topic, as a mosquitto ACL file and as dynamic-security JSON.

A device writes its own `req`, `state`, `lost` and reads its own `rep` and `gw/+/#`; the account
`enrol` has `enrol/*` only; a bridge reads every `req`, `state`, `lost`, writes every `rep` and its
own `gw/{bridge}/#`. Nobody else has anything: both forms need `allow_anonymous false`.

The file names devices by pattern (`%u`), so a new device needs a password and no new file. A
pattern is for every account, so what `enrol` must not have by it is denied to it by name. The JSON
names each device, with its client id bound to its user name; the file needs
`use_username_as_clientid true` for that.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import is_id
from colonist_protocol.topics import Topics

ENROL: Final = "enrol"
DEVICE_WRITES: Final = ("req", "state", "lost")
BRIDGE_READS: Final = DEVICE_WRITES
PBKDF2_ROUNDS: Final = 210_000

_SEND: Final = "publishClientSend"
_RECEIVE: Final = "publishClientReceive"
_SUBSCRIBE: Final = "subscribePattern"

Salt = Callable[[int], bytes]
"""That many random bytes: `os.urandom`."""


def bridge_account(name: str) -> str:
    """The user name, and client id, of a bridge."""
    return f"gw-{name}"


@dataclass(frozen=True, slots=True)
class Access:
    """The topics that an account may write and read; everything else is refused."""

    writes: tuple[str, ...]
    reads: tuple[str, ...]


def device_access(topics: Topics, id: str) -> Access:
    """What a device with an account of its own has."""
    return Access(
        writes=tuple(topics.device(id, leaf) for leaf in DEVICE_WRITES),
        reads=(topics.device(id, "rep"), f"{topics.prefix}/gw/+/#"),
    )


def bridge_access(topics: Topics, name: str) -> Access:
    """What a bridge has."""
    return Access(
        writes=(topics.every_device("rep"), _own_gateway(topics, name)),
        reads=tuple(topics.every_device(leaf) for leaf in BRIDGE_READS),
    )


def enrol_access(topics: Topics) -> Access:
    """What devices without an account share."""
    return Access(writes=(f"{topics.prefix}/{ENROL}/req",), reads=(f"{topics.prefix}/{ENROL}/rep",))


def mosquitto_acl(topics: Topics, bridges: Sequence[str]) -> str:
    """The text of an `acl_file`. Raises `InvalidValueError` for a bridge's name."""
    prefix = topics.prefix
    lines = [
        "# Made by `colonist bridge acl`.",
        "# Needs allow_anonymous false and use_username_as_clientid true.",
        "",
        "# Every device: its user name is the id of its key.",
        *(f"pattern write {prefix}/%u/{leaf}" for leaf in DEVICE_WRITES),
        f"pattern read {prefix}/%u/rep",
        f"pattern read {prefix}/gw/+/#",
        "",
        "# Devices that have no account of their own yet.",
        f"user {ENROL}",
        f"topic deny {prefix}/gw/#",
        *(f"topic deny {prefix}/{ENROL}/{leaf}" for leaf in ("state", "lost")),
        f"topic write {prefix}/{ENROL}/req",
        f"topic read {prefix}/{ENROL}/rep",
    ]
    for name in bridges:
        lines += ["", f"user {bridge_account(name)}"]
        lines += [f"topic read {topics.every_device(leaf)}" for leaf in BRIDGE_READS]
        lines += [f"topic write {topics.every_device('rep')}"]
        lines += [f"topic readwrite {_own_gateway(topics, name)}"]
    return "\n".join(lines) + "\n"


def dynamic_security(
    topics: Topics,
    *,
    bridges: Sequence[str],
    devices: Iterable[str],
    passwords: Mapping[str, str],
    salt: Salt,
) -> dict[str, Any]:
    """The configuration of mosquitto's dynamic-security plugin.

    An account without an entry in `passwords` is made, but cannot log in. Raises
    `InvalidValueError`.
    """
    ids = sorted(set(devices))
    if wrong := [id for id in ids if not is_id(id)]:
        raise InvalidValueError(f"{wrong[0][:80]!r} is no device id")
    roles = {ENROL: enrol_access(topics)}
    roles |= {id: device_access(topics, id) for id in ids}
    roles |= {bridge_account(name): bridge_access(topics, name) for name in bridges}
    return {
        "defaultACLAccess": dict.fromkeys((_SEND, _RECEIVE, "subscribe", "unsubscribe"), False)
        | {"unsubscribe": True},
        "clients": [_client(name, passwords.get(name), salt) for name in roles],
        "groups": [],
        "roles": [_role(name, access) for name, access in roles.items()],
    }


def dynamic_security_text(configuration: Mapping[str, Any]) -> str:
    """The file as the plugin reads it."""
    return json.dumps(configuration, indent=1) + "\n"


def _own_gateway(topics: Topics, name: str) -> str:
    return topics.gateway(name, "state").removesuffix("state") + "#"


def _client(name: str, password: str | None, salt: Salt) -> dict[str, Any]:
    client: dict[str, Any] = {"username": name, "roles": [{"rolename": f"colonist-{name}"}]}
    if name != ENROL:  # devices without an account share this one
        client["clientid"] = name
    if password is None:
        return client
    grains = salt(12)
    derived = hashlib.pbkdf2_hmac("sha512", password.encode(), grains, PBKDF2_ROUNDS, 64)
    return client | {
        "password": base64.b64encode(derived).decode(),
        "salt": base64.b64encode(grains).decode(),
        "iterations": PBKDF2_ROUNDS,
    }


def _role(account: str, access: Access) -> dict[str, Any]:
    rules = [(_SEND, topic) for topic in access.writes]
    rules += [(kind, topic) for topic in access.reads for kind in (_RECEIVE, _SUBSCRIBE)]
    acls = [
        {"acltype": kind, "topic": topic, "priority": 0, "allow": True} for kind, topic in rules
    ]
    return {"rolename": f"colonist-{account}", "acls": acls}
