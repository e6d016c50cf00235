"""The bridge as a program: its configuration, its start and its end."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from colonist_bridge.config import BridgeConfig, load
from colonist_client import secret_file
from colonist_protocol.envelope import pack_request
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.process import AssignProcess
from tests.bridge.colony import running_colony
from tests.bridge.rig import TOPICS, Place, identity, wire
from tests.bridge.test_device import pair

NEEDED = {"name": "edge", "server_url": "http://h:1", "broker_url": "mqtt://h"}


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text('name = "file"\nserver_url = "http://h"\nbroker_url = "mqtt://h"\nhold_s = 5\n')
    environ = {"COLONIST_BRIDGE_NAME": "environ", "COLONIST_BRIDGE_HOLD_S": "6", "HOME": "/"}
    config = load(file, environ, {"name": "flag", "prefix": None})
    assert (config.name, config.hold_s, config.prefix) == ("flag", 6.0, "colonist/v1")
    assert config.account == "gw-flag"


def test_a_password_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret_file.write(secret, b"hush-hush\n")
    for environ, name in (
        ({}, str(secret)),
        ({"CREDENTIALS_DIRECTORY": str(tmp_path)}, "password"),
    ):
        config = load(None, environ, NEEDED | {"password_file": name})
        assert config.password == secret.read_text().strip()
        assert "hush-hush" not in repr(config)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    for name, content in (("password", "hush-hush\n"), ("bridge.toml", 'password = "hush-hush"\n')):
        path = tmp_path / name
        path.write_text(content)
        path.chmod(0o644)
        given = (
            (path, NEEDED)
            if name == "bridge.toml"
            else (None, NEEDED | {"password_file": str(path)})
        )
        with pytest.raises(InvalidValueError, match=f"{name} has mode 0644: .*chmod 600") as caught:
            load(given[0], {}, given[1])
        assert "hush-hush" not in str(caught.value)
        path.chmod(0o600)
        assert load(given[0], {}, given[1]).password == "hush-hush"  # noqa: S105 - as written above


def test_a_password_is_given_once(tmp_path: Path) -> None:
    secret_file.write(tmp_path / "password", b"hush-hush\n")
    environ = {
        "COLONIST_BRIDGE_PASSWORD": "other",
        "COLONIST_BRIDGE_PASSWORD_FILE": str(tmp_path / "password"),
    }
    with pytest.raises(InvalidValueError, match="both password and password_file are set"):
        load(None, environ, NEEDED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Not A Name"},
        {"server_url": "ftp://h"},
        {"broker_url": "mqtt://user:secret@h"},
        {"broker_url": "http://h"},
        {"prefix": "a/+"},
        {"max_requests": "0"},
        {"max_requests": "many"},
        {"no_such_thing": "1"},
        {"password_file": "/nowhere/at/all"},
    ],
)
def test_a_configuration_that_cannot_work_is_refused_whole(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        load(None, {}, NEEDED | wrong)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["name = ", "\x00", "[table]\nname='x'"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text(text)
    with pytest.raises(InvalidValueError):
        load(file, {}, NEEDED)


def test_defaults_are_a_whole_configuration() -> None:
    assert BridgeConfig(**NEEDED).max_requests == 5000


async def start(place: Place, server_url: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "colonist_bridge",
        *("--name", "edge", "--server-url", server_url, "--broker-url", place.url),
        env={"PATH": os.environ["PATH"]},
        stderr=asyncio.subprocess.DEVNULL,
    )


@pytest.mark.e2e
@pytest.mark.mosquitto
async def test_a_killed_bridge_is_missed_and_its_successor_takes_the_poll_over(
    mosquitto_place: Place,
) -> None:
    gateway = f"{TOPICS.prefix}/gw/edge/+"
    anna = identity("anna")
    async with (
        running_colony() as colony,
        wire(mosquitto_place, "watcher", gateway) as watcher,
    ):
        bridge = await start(mosquitto_place, colony.url)
        born = await watcher.next_json()
        async with pair(mosquitto_place) as (device, _), asyncio.TaskGroup() as group:
            body = pack_request(AssignProcess(colonyname="c", timeout=60), anna)
            asked = group.create_task(device.exchange(body, wait_s=50))
            await colony.until(lambda: colony.parked == 1)
            bridge.kill()
            await bridge.wait()
            await colony.until(lambda: colony.parked == 0)
            while (lost := await watcher.next()).topic != TOPICS.gateway("edge", "lost"):
                pass
            assert json.loads(lost.payload)["boot"] == born["boot"]
            bridge = await start(mosquitto_place, colony.url)
            await colony.until(lambda: colony.parked == 1)
            colony.give(anna.id, b'{"work":1}')
            assert b'"error":false' in await asked
        bridge.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(bridge.wait(), 15) == 0


@pytest.mark.e2e
async def test_a_wrong_configuration_ends_the_program_with_code_2() -> None:
    process = await start(Place("http://not-a-broker"), "http://h")
    assert await asyncio.wait_for(process.wait(), 30) == 2
