"""`colonist key`: made, shown, put under a passphrase and taken off again."""

import os
import stat
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from colonist_cli import keys, stored
from colonist_cli.exits import CliError, Exit
from colonist_cli.main import app
from colonist_cli.place import Place
from colonist_client import keyfile, secret_file
from colonist_client.custody import Custody
from colonist_client.locked_key import Cost, lock
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity
from tests.support import leaks

KEY = Identity.from_entropy(bytes(range(32)))
PASSPHRASE = "hush-hush"  # noqa: S105 - a test's


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyfile, "lock", partial(lock, cost=Cost(n=1 << 14)))


def file(folder: Path, text: str, name: str = "passphrase") -> str:
    secret_file.write(folder / name, text.encode() + b"\n")
    return str(folder / name)


def colonist(home: Path, *words: str, **environment: str) -> Result:
    return CliRunner().invoke(app, [*words, f"--home={home}"], obj=environment)


def typing(*answers: str) -> Custody:
    left = list(answers)
    return Custody({}, lambda _: left.pop(0))


def refused(done: Result, exit: Exit, reason: str) -> None:
    assert done.exit_code == exit, done.output
    assert reason in done.stderr
    assert PASSPHRASE not in done.output


def test_a_key_is_made_under_a_passphrase_and_shown_without_it(tmp_path: Path) -> None:
    made = colonist(tmp_path, "key", "new", "ada", "--passphrase-file", file(tmp_path, PASSPHRASE))
    assert made.exit_code == 0, made.output
    path = tmp_path / "keys" / "ada.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    id = made.stdout.strip()
    assert colonist(tmp_path, "key", "show", "ada").stdout.strip() == id
    assert keyfile.read(path, typing(PASSPHRASE)).id == id


def test_where_a_passphrase_is_given_every_new_key_is_under_it(tmp_path: Path) -> None:
    given = {"COLONIST_PASSPHRASE_FILE": file(tmp_path, PASSPHRASE)}
    assert colonist(tmp_path, "key", "new", "ada", **given).exit_code == 0
    with keys.id_for(Place(tmp_path, given), "ben", "") as id:
        assert id == keyfile.id_of(tmp_path / "keys" / "ben.key")
    for name in ("ada", "ben"):
        path = tmp_path / "keys" / f"{name}.key"
        assert keyfile.open_file(path, typing(PASSPHRASE)).passphrase == PASSPHRASE.encode()


def test_the_id_of_a_key_under_a_passphrase_is_known_without_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    secret_file.make_folder(place.keys)
    keyfile.write(place.key("ada"), KEY, PASSPHRASE.encode())
    with keys.id_for(place, "ada", "") as id:
        assert id == KEY.id


def test_a_passphrase_is_put_on_changed_and_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "ada.key"
    keyfile.write(path, KEY)
    first, second = file(tmp_path, PASSPHRASE), file(tmp_path, "another one", "second")
    steps = (
        (("encrypt", "--passphrase-file", first), {}),
        (("encrypt", "--passphrase-file", second), {"COLONIST_PASSPHRASE_FILE": first}),
        (("show",), {}),
        (("decrypt",), {"COLONIST_PASSPHRASE_FILE": second}),
        (("encrypt",), {"COLONIST_PASSPHRASE_FILE": first}),
    )
    for words, given in steps:
        done = colonist(tmp_path, "key", words[0], str(path), *words[1:], **given)
        assert (done.exit_code, done.stdout.strip()) == (0, KEY.id), done.output
        assert (KEY.reveal() in path.read_text()) is (words[0] == "decrypt")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keyfile.read(path, typing(PASSPHRASE)) == KEY
    assert {each.name for each in tmp_path.iterdir()} == {"ada.key", "passphrase", "second"}


def test_a_wrong_passphrase_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ada.key"
    keyfile.write(path, KEY, PASSPHRASE.encode())
    before = path.read_bytes()
    wrong = file(tmp_path, "not that one")
    for word in (("encrypt", "--passphrase-file", wrong), ("decrypt",), ("show", "--reveal")):
        done = colonist(
            tmp_path, "key", word[0], str(path), *word[1:], COLONIST_PASSPHRASE_FILE=wrong
        )
        refused(done, Exit.USAGE, "wrong passphrase")
    assert path.read_bytes() == before


def test_a_key_is_revealed_only_when_it_is_asked_for(tmp_path: Path) -> None:
    keyfile.write(tmp_path / "ada.key", KEY, PASSPHRASE.encode())
    given = {"COLONIST_PASSPHRASE_FILE": file(tmp_path, PASSPHRASE)}
    done = colonist(tmp_path, "key", "show", "--reveal", str(tmp_path / "ada.key"), **given)
    assert done.stdout.strip() == KEY.reveal()


def test_a_new_passphrase_is_asked_for_twice(tmp_path: Path) -> None:
    path = tmp_path / "ada.key"
    keyfile.write(path, KEY)
    with pytest.raises(InvalidValueError, match="second time"):
        keys.encrypt(path, typing(PASSPHRASE, "hush-hash"), "")
    assert keyfile.read(path) == KEY
    keys.encrypt(path, typing(PASSPHRASE, PASSPHRASE), "")
    keys.encrypt(path, typing(PASSPHRASE, "another one", "another one"), "")
    assert keyfile.read(path, typing("another one")) == KEY


def test_a_short_passphrase_is_refused_before_a_key_is_made(tmp_path: Path) -> None:
    short = file(tmp_path, "hush")
    for given in ({}, {"COLONIST_PASSPHRASE_FILE": short}):
        option = () if given else ("--passphrase-file", short)
        done = colonist(tmp_path, "key", "new", "ada", "--encrypt", *option, **given)
        refused(done, Exit.USAGE, "8 characters or more")
    assert not (tmp_path / "keys" / "ada.key").exists()


def test_two_changes_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ada.key"
    keyfile.write(path, KEY)
    with keys.alone(path), pytest.raises(CliError, match="by another run"):
        keys.decrypt(path, typing())


@pytest.mark.parametrize("word", ["show", "encrypt", "decrypt"])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, word: str) -> None:
    path, link, pipe = (tmp_path / name for name in ("ada.key", "link.key", "pipe.key"))
    keyfile.write(path, KEY)
    path.chmod(0o640)
    link.symlink_to(path)
    os.mkfifo(pipe)
    for each, reason in ((path, "chmod 600"), (link, "symbolic link"), (pipe, "no regular file")):
        refused(colonist(tmp_path, "key", word, str(each)), Exit.USAGE, reason)


@pytest.mark.parametrize(
    ("words", "given", "reason"),
    [
        (("server", "--archive=postgresql://u:hush-hush@h/d"), {}, "COLONIST_ARCHIVE_FILE"),
        (("server", "--store=etcd://u:hush-hush@h/p", "--port=0", "--keys=HERE"), {},
         "password-file="),
        (("server", "--store=postgres://u:hush-hush@h/p"), {}, "it is not sqlite:PATH"),
        (("store", "check", "--store=postgres://u:hush-hush@h/p"), {}, "it is neither sqlite:PATH"),
        (("bridge", "run", "--set=password=hush-hush"), {}, "--password-file"),
        (("bridge", "run", "--name=b", "--server=http://h", "--broker=mqtt://u:hush-hush@h"),
         {}, "holds a password"),
        (("key", "new", "x"), {"COLONIST_PASSPHRASE": PASSPHRASE}, "a variable goes to every"),
        (("user", "list"), {"COLONIES_PRVKEY": PASSPHRASE}, "COLONIES_PRVKEY: "),
        (("user", "list"), {"COLONIES_PRVKEY": PASSPHRASE, "COLONIES_PRVKEY_FILE": "x"},
         "both COLONIES_PRVKEY and"),
    ],
)  # fmt: skip
def test_a_secret_in_the_wrong_place_is_refused_unseen(
    tmp_path: Path, words: tuple[str, ...], given: dict[str, str], reason: str
) -> None:
    here = [word.replace("HERE", str(tmp_path / "keys")) for word in words]
    done = colonist(tmp_path, *here, **given)
    assert done.exit_code in (Exit.USAGE, Exit.NOT_STARTED)
    refused(done, Exit(done.exit_code), reason)
    assert leaks.in_files(tmp_path, {"it": PASSPHRASE.encode()}, but=[]) == {}


async def test_the_archive_of_a_backup_is_named_without_its_password() -> None:
    with pytest.raises(CliError, match="PGPASSFILE") as told:
        async with stored._archive("postgresql://u:hush-hush@h/d"):
            raise AssertionError
    assert PASSPHRASE not in str(told.value)


def test_the_state_folder_is_opened_by_the_environment(tmp_path: Path) -> None:
    """Keys that `up` reads may be under a passphrase; nothing of the environment is shown."""
    place = Place(tmp_path, {"COLONIES_PRVKEY": KEY.reveal()})
    assert KEY.reveal() not in repr(place)
    assert place == Place(tmp_path)
