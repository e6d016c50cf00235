"""Flags > environment > state folder > default, and keys that stay secret."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from colonist_cli import keys
from colonist_cli.exits import CliError, Exit
from colonist_cli.place import Notes, Place, find_place
from colonist_cli.settings import Flags, Role, Settings
from colonist_cli.variables import lines
from colonist_client import keyfile
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity

KEYS = [Identity.from_entropy(bytes([number]) * 32) for number in range(3)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "state")
    made.make()
    keyfile.write(made.key("user"), KEYS[0])
    made.write(
        Notes(
            server="http://127.0.0.1:1", colony="home", executor_type="machine", key="keys/user.key"
        )
    )
    return made


def settings(
    place: Place, flags: Flags | None = None, environment: dict[str, str] | None = None
) -> Settings:
    return Settings(flags or Flags(), environment or {}, place)


def test_the_state_folder_is_read(place: Place) -> None:
    found = settings(place)
    assert (found.server, found.colony, found.executor_type) == (
        "http://127.0.0.1:1",
        "home",
        "machine",
    )
    assert found.signer(Role.MEMBER).identity == KEYS[0]


def test_the_environment_wins_over_the_state_folder(place: Place) -> None:
    environment = {
        "COLONIES_SERVER_HOST": "example.org",
        "COLONIES_SERVER_PORT": "2",
        "COLONIES_TLS": "true",
        "COLONIES_COLONY_NAME": "away",
        "COLONIES_PRVKEY": KEYS[1].reveal(),
    }
    found = settings(place, environment=environment)
    assert (found.server, found.colony) == ("https://example.org:2", "away")
    assert found.signer(Role.MEMBER).identity == KEYS[1]


def test_flags_win_over_the_environment(place: Place, tmp_path: Path) -> None:
    keyfile.write(tmp_path / "mine.key", KEYS[2])
    flags = Flags(server="http://[::1]:3", colony="here", key=tmp_path / "mine.key")
    environment = {"COLONIES_SERVER_HOST": "example.org", "COLONIES_PRVKEY": KEYS[1].reveal()}
    found = settings(place, flags, environment)
    assert (found.server, found.colony) == ("http://[::1]:3", "here")
    assert found.signer(Role.MEMBER).identity == KEYS[2]


def test_nothing_said_is_the_default_server(tmp_path: Path) -> None:
    assert settings(Place(tmp_path)).server == "http://127.0.0.1:50080"


@pytest.mark.parametrize("role", list(Role))
def test_a_missing_key_is_told_with_the_remedy(tmp_path: Path, role: Role) -> None:
    with pytest.raises(CliError, match=f"key of a {role}: --key FILE, COLONIES_"):
        settings(Place(tmp_path)).signer(role)


def test_a_missing_colony_is_told_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="--colony NAME"):
        _ = settings(Place(tmp_path)).colony


def test_a_bad_variable_is_named_and_its_key_is_not_repeated(place: Place) -> None:
    with pytest.raises(InvalidValueError, match="COLONIES_PRVKEY") as told:
        settings(place, environment={"COLONIES_PRVKEY": "secret-but-wrong"})
    assert "secret-but-wrong" not in str(told.value)


@pytest.mark.parametrize("text", ["colony = 3", "colony = [", "\x00"])
def test_a_broken_file_is_named(place: Place, text: str) -> None:
    place.notes_file.write_text(text)
    with pytest.raises(CliError, match=r"colonist\.toml"):
        settings(place)


def test_the_state_folder_comes_from_flag_environment_default(tmp_path: Path) -> None:
    assert find_place(tmp_path / "a", {"COLONIST_HOME": "/b"}).root == tmp_path / "a"
    assert find_place(None, {"COLONIST_HOME": "/b", "XDG_DATA_HOME": "/c"}).root == Path("/b")
    assert find_place(None, {"XDG_DATA_HOME": "/c"}).root == Path("/c/colonist")
    assert find_place(None, {}).root == Path.home() / ".local/share/colonist"


def test_the_state_folder_is_for_its_owner_only(place: Place) -> None:
    assert stat.S_IMODE(place.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.keys.stat().st_mode) == 0o700


def test_a_new_key_is_0600_and_never_overwrites(place: Place) -> None:
    path = keys.path_of(place, "new")
    made = keys.make(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CliError, match="not overwritten") as told:
        keys.make(path)
    assert told.value.exit is Exit.CONFLICT
    assert keyfile.read(path) == made


def test_a_key_is_named_or_a_path(place: Place) -> None:
    assert keys.path_of(place, "user") == place.keys / "user.key"
    assert keys.path_of(place, "./user") == Path("user")
    assert keys.path_of(place, "user.pem") == Path("user.pem")


def refused(place: Place) -> None:
    with keys.id_for(place, "new", ""):
        raise CliError(Exit.REFUSED, "no")


def test_a_key_made_for_nothing_is_removed(place: Place) -> None:
    with pytest.raises(CliError):
        refused(place)
    assert not place.key("new").exists()


def test_a_key_that_was_there_stays(place: Place) -> None:
    keys.make(place.key("new"))
    with pytest.raises(CliError):
        refused(place)
    assert place.key("new").exists()


def test_variables_are_those_of_the_sdks(place: Place) -> None:
    assert lines(settings(place), are_keys_shown=True) == [
        "export COLONIES_SERVER_HOST=127.0.0.1",
        "export COLONIES_SERVER_PORT=1",
        "export COLONIES_SERVER_HTTP_PORT=1",
        "export COLONIES_TLS=false",
        "export COLONIES_SERVER_TLS=false",
        "export COLONIES_COLONY_NAME=home",
        "export COLONIES_EXECUTOR_TYPE=machine",
        f"export COLONIES_PRVKEY={KEYS[0].reveal()}",
    ]


def test_keys_stay_off_a_terminal(place: Place) -> None:
    shown = "\n".join(lines(settings(place), are_keys_shown=False))
    assert KEYS[0].reveal() not in shown
    assert "# COLONIES_PRVKEY is left out" in shown


def test_the_file_of_a_key_is_known_where_there_is_one(place: Place, tmp_path: Path) -> None:
    noted = settings(place).key_file(Role.MEMBER)
    assert keyfile.read(noted) == settings(place).signer(Role.MEMBER).identity
    named = tmp_path / "named.key"
    keyfile.write(named, Identity(b"\7" * 32))
    of_variable = settings(place, environment={"COLONIES_PRVKEY_FILE": str(named)})
    assert of_variable.key_file(Role.MEMBER) == named
    flags = Settings(Flags(key=tmp_path / "flag.key"), {}, place)
    assert flags.key_file(Role.SERVER) == flags.key_file_named("x") == tmp_path / "flag.key"
    assert settings(place).key_file_named("x") == place.key("x")


def test_a_key_that_is_in_no_file_cannot_be_changed(place: Place, tmp_path: Path) -> None:
    in_variable = settings(place, environment={"COLONIES_PRVKEY": "11" * 32})
    with pytest.raises(CliError, match="the key is in COLONIES_PRVKEY"):
        in_variable.key_file(Role.MEMBER)
    with pytest.raises(CliError, match="which key of a server owner"):
        settings(Place(tmp_path / "none")).key_file(Role.SERVER)


PINNED, OTHER = KEYS[1].id, KEYS[2].id


def test_the_pin_of_the_state_folder_holds_for_every_url(place: Place) -> None:
    assert settings(place, Flags(server="http://127.0.0.1:2")).pin() is None
    assert settings(place).pin_origin == "COLONIST_SERVER_ID"
    place.write(replace(place.read(), server_id=PINNED))
    assert settings(place).server_id == PINNED
    for elsewhere in (Flags(server="http://127.0.0.1:2"), Flags(server="https://[::1]")):
        found = settings(place, elsewhere)  # a mistyped address does not undo the pin
        assert (found.server_id, found.pin_origin) == (
            PINNED,
            f"server_id in {place.notes_file}, or COLONIST_SERVER_ID",
        )
    environment = {"COLONIES_SERVER_HOST": "elsewhere.example"}
    assert settings(place, environment=environment).server_id == PINNED
    assert settings(place, environment={"COLONIST_SERVER_ID": OTHER}).server_id == OTHER


def test_a_changed_server_key_is_written_down_where_the_pin_came_from(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write(replace(place.read(), server_id=PINNED))
    pin = settings(place).pin()
    assert pin is not None
    pin.follow(OTHER)
    assert place.read().server_id == OTHER
    assert place.read().key == "keys/user.key"
    pin = settings(place, environment={"COLONIST_SERVER_ID": PINNED}).pin()
    assert pin is not None
    pin.follow(KEYS[0].id)
    assert f"set COLONIST_SERVER_ID to {KEYS[0].id}" in capsys.readouterr().err
    assert place.read().server_id == OTHER


def test_the_environment_of_a_pinned_server_carries_the_pin(place: Place) -> None:
    assert not any(
        "COLONIST_SERVER_ID" in line for line in lines(settings(place), are_keys_shown=False)
    )
    place.write(replace(place.read(), server_id=PINNED))
    assert f"export COLONIST_SERVER_ID={PINNED}" in lines(settings(place), are_keys_shown=False)


def test_a_pin_that_is_no_id_is_refused(place: Place) -> None:
    with pytest.raises(InvalidValueError, match="COLONIST_SERVER_ID is not 64"):
        settings(place, environment={"COLONIST_SERVER_ID": "ab"})
