"""The agent's configuration: file < SDK variables < ours < flags; keys never shown."""

from dataclasses import fields
from pathlib import Path

import pytest

from colonist_agent.config import AgentConfig, load
from colonist_agent.main import main, open_transport
from colonist_client import keyfile, secret_file
from colonist_client.locked_key import Cost, lock
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

HEX = "ddf7f7791208083b6a9ed975a72684f6406a269cfa36f1b1c32045c0a71fff05"
ENVIRONMENT = {
    "COLONIES_SERVER_HOST": "from-sdk",
    "COLONIES_COLONY_NAME": "home",
    "COLONIES_PRVKEY": HEX,
    "UNRELATED": "x",
}
FILE = """
url = "http://from-file:1"
slots = 4
checksum_roots = ["/var/log"]

[commands.ping]
argv = ["/bin/ping", "-c", "{count}", "{host}"]
parameters.host = { pattern = "[a-z0-9.-]+" }
parameters.count = { type = "int", default = 3, min = 1, max = 10 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.write_text(FILE)
    return path


def test_later_sources_win(file: Path) -> None:
    assert load(file, {"COLONIES_COLONY_NAME": "home", "COLONIES_PRVKEY": HEX}, {}).url == (
        "http://from-file:1"
    )
    assert load(file, ENVIRONMENT, {}).url == "http://from-sdk:50080"
    ours = {**ENVIRONMENT, "COLONIST_AGENT_URL": "https://ours", "COLONIST_AGENT_SLOTS": "2"}
    assert (load(file, ours, {}).url, load(file, ours, {}).slots) == ("https://ours", 2)
    assert load(file, ours, {"url": "mqtt://flag", "slots": None}).url == "mqtt://flag"


def test_commands_and_lists(file: Path) -> None:
    config = load(file, {**ENVIRONMENT, "COLONIST_AGENT_BUILTINS": "echo, sleep"}, {})
    assert config.builtins == ["echo", "sleep"]
    assert config.checksum_roots == ["/var/log"]
    assert config.commands["ping"].parameters["count"].max == 10


def test_key_comes_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity = Identity.from_entropy(bytes(range(32)))
    keyfile.write(path, identity)
    assert load(None, ENVIRONMENT, {"key_file": str(path)}).identity == identity
    path.chmod(0o644)
    with pytest.raises(InvalidValueError, match="chmod 600"):
        load(None, ENVIRONMENT, {"key_file": str(path)})


def test_a_key_under_a_passphrase_is_a_matter_of_two_files(tmp_path: Path) -> None:
    """Both are found by their names where systemd gives them."""
    identity = Identity.from_entropy(bytes(range(32)))
    secret_file.write(tmp_path / "device", lock(identity, b"hush-hush", Cost(n=1 << 14)))
    environment = {**ENVIRONMENT, "CREDENTIALS_DIRECTORY": str(tmp_path)}
    for variables in ({"COLONIST_AGENT_KEY_FILE": "device"}, {"COLONIES_PRVKEY_FILE": "device"}):
        given = {name: value for name, value in environment.items() if name != "COLONIES_PRVKEY"}
        given |= variables | {"COLONIST_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
        (tmp_path / "passphrase").unlink(missing_ok=True)
        with pytest.raises(InvalidValueError, match=r"COLONIST_PASSPHRASE_FILE .*No such file"):
            load(None, given, {})
        secret_file.write(tmp_path / "passphrase", b"hush-hush\n")
        assert load(None, given, {}).identity == identity


async def test_the_brokers_password_is_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "password"
    secret_file.write(path, b"hush-hush\n")
    path.chmod(0o640)
    config = load(None, ENVIRONMENT, {"url": "mqtt://h", "password_file": str(path)})
    with pytest.raises(InvalidValueError, match=r"password_file .*mode 0640.*chmod 600"):
        async with open_transport(config, {}):
            raise AssertionError
    # systemd's own are such.
    named = load(None, ENVIRONMENT, {"url": "mqtt://h", "password_file": "password"})
    async with open_transport(named, {"CREDENTIALS_DIRECTORY": str(tmp_path)}):
        pass


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"url": "ftp://h"}, "url is not"),
        ({"url": "mqtt://u:sesame@h"}, "url holds a user name"),
        ({"slots": "0"}, "slots is 0: it must be above 0"),
        ({"slots": "many"}, "slots"),
        ({"colony": "a/b"}, "colony"),
        ({"cpu": "lots"}, "CPU"),
        ({"builtins": "echo,format"}, "there is no format"),
        ({"checksum_roots": "here"}, "not absolute"),
        ({"log_level": "loud"}, "log_level"),
        ({"commands": "x"}, "no such setting: commands"),
        ({"identity": "x"}, "no such setting: identity"),
        ({"speed": "x"}, "no such setting: speed"),
    ],
)
def test_what_cannot_work_is_refused(flags: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as told:
        load(None, ENVIRONMENT, flags)
    assert "sesame" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("COLONIES_SERVER_HOST", "url is missing"),
        ("COLONIES_COLONY_NAME", "colony is missing"),
        ("COLONIES_PRVKEY", "key is missing: set key_file"),
    ],
)
def test_what_is_missing_is_named(name: str, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        load(None, {key: value for key, value in ENVIRONMENT.items() if key != name}, {})


@pytest.mark.parametrize("text", ["url = ", "speed = 1\n", "[commands.x]\nargv = 1\n"])
def test_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InvalidValueError):
        load(path, ENVIRONMENT, {})


def test_key_is_never_shown(file: Path) -> None:
    config = load(file, ENVIRONMENT, {})
    assert HEX not in config.describe() + repr(config)
    assert config.identity.id in config.describe()


def test_check_shows_the_configuration_and_ends(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert main(["--config", str(file), "--check", "--slots", "7"]) == 0
    shown = capsys.readouterr().out
    assert "slots = 7" in shown
    assert HEX not in shown


def test_bad_command_is_found_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "agent.toml"
    path.write_text('[commands.x]\nargv = ["ls"]\n')
    assert main(["--config", str(path)]) == 2
    assert "command 'x': argv must start with the absolute path" in capsys.readouterr().err


def test_every_setting_is_in_the_reference() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/agent-config.md").read_text()
    names = {item.name for item in fields(AgentConfig)} - {"identity", "commands"}
    assert {name for name in names if f"`{name}`" not in page} == set()
