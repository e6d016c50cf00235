"""Addresses and keys as the existing SDKs read them; keys never in a text."""

from pathlib import Path

import pytest

from colonist_client import keyfile
from colonist_client.environment import Settings, from_environment
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

HEX = "ddf7f7791208083b6a9ed975a72684f6406a269cfa36f1b1c32045c0a71fff05"
ID = "3fc05cf3df4b494e95d6a3d297a34f19938f7daa7422ab0d4f794454133341ac"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"COLONIES_SERVER_HOST": "h"}, "http://h:50080"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_SERVER_PORT": "443"}, "http://h:443"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_SERVER_HTTP_PORT": "81"}, "http://h:81"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_TLS": "true"}, "https://h:50080"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_SERVER_TLS": "True"}, "https://h:50080"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_TLS": "false"}, "http://h:50080"),
        ({"COLONIES_SERVER_HOST": "::1"}, "http://[::1]:50080"),
    ],
)
def test_address(environment: dict[str, str], url: str | None) -> None:
    assert from_environment(environment).url == url


def test_names_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keyfile.write(path, Identity.from_hex(HEX))
    found = from_environment(
        {
            "COLONIES_COLONY_NAME": "home",
            "COLONIES_EXECUTOR_NAME": "pump",
            "COLONIES_EXECUTOR_TYPE": "device",
            "COLONIES_PRVKEY": HEX,
            "COLONIES_COLONY_PRVKEY_FILE": str(path),
        }
    )
    assert (found.colony, found.executor_name, found.executor_type) == ("home", "pump", "device")
    assert found.identity is not None
    assert found.identity.id == ID
    assert found.colony_identity == found.identity
    assert found.server_identity is None
    assert HEX not in repr(found)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_SERVER_PORT": "0"}, "COLONIES_SERVER_PORT"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_SERVER_PORT": "70000"}, "COLONIES_SERVER_PORT"),
        ({"COLONIES_SERVER_HOST": "h", "COLONIES_TLS": "maybe"}, "COLONIES_TLS is neither"),
        ({"COLONIES_PRVKEY": HEX[:-1] + "g"}, "COLONIES_PRVKEY: "),
        ({"COLONIES_PRVKEY": HEX[:-2]}, "COLONIES_PRVKEY: "),
        ({"COLONIES_PRVKEY": HEX, "COLONIES_PRVKEY_FILE": "/x"}, "both COLONIES_PRVKEY and"),
        ({"COLONIES_PRVKEY_FILE": "/nowhere"}, "COLONIES_PRVKEY_FILE: .*/nowhere: No such file"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as raised:
        from_environment(environment)
    assert HEX[:16] not in str(raised.value)


def test_a_key_of_systemd_is_found_by_its_name(tmp_path: Path) -> None:
    keyfile.write(tmp_path / "device", Identity.from_hex(HEX))
    found = from_environment(
        {"COLONIES_PRVKEY_FILE": "device", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    )
    assert found.identity is not None
    assert found.identity.id == ID


def test_nothing_is_nothing() -> None:
    assert from_environment({}) == Settings()
