"""The server's key files: made once, read strictly, those before and the one to come."""

import logging
import stat
from pathlib import Path

import pytest

from colonist_client import keyfile, secret_file
from colonist_client.custody import Custody
from colonist_client.locked_key import Cost, lock
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.identity import Identity, recover
from colonist_server.keyring import Keyring
from colonist_server.main import archive_address, configure

KEYS = [Identity.from_entropy(bytes([number]) * 32) for number in range(4)]


def nobody(prompt: str) -> str:
    raise AssertionError(f"asked: {prompt}")


def ring(folder: Path, **environment: str) -> Keyring:
    return Keyring(folder, Custody(environment, nobody))


def test_the_first_start_makes_keys_and_the_second_finds_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder = tmp_path / "state" / "keys"
    first = ring(folder)
    made = (first.owner_id(), first.server_keys().id)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    again = ring(folder)
    assert (again.owner_id(), again.server_keys().id) == made
    for name, id in zip(("server-owner.key", "server.key"), made, strict=True):
        assert f"id={id} file={folder / name}" in caplog.text
        assert keyfile.read(folder / name).reveal() not in caplog.text


def test_of_two_nodes_that_start_at_once_one_reads_the_others_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = keyfile.write

    def late(path: Path, identity: Identity, passphrase: bytes | None = None) -> None:
        if not path.exists():
            real(path, KEYS[0])  # the other node's
        real(path, identity, passphrase)

    monkeypatch.setattr(keyfile, "write", late)
    assert ring(tmp_path).server_keys().id == KEYS[0].id


def test_former_keys_sign_the_way_to_the_newest(tmp_path: Path) -> None:
    names = ("server.key.1", "server.key.2", "server.key", "server.key.next")
    for name, key in zip(names, KEYS, strict=True):
        keyfile.write(tmp_path / name, key)
    for foreign in ("server.key.old", "server.key.01", "server.key.0", "xserver.key.1"):
        (tmp_path / foreign).write_text("no key")
    found = ring(tmp_path).server_keys()
    assert found.id == KEYS[2].id
    assert found.ids == {key.id for key in KEYS}
    assert [old for old, _ in found.via] == [KEYS[0].id, KEYS[1].id]
    for (old, signature), new in zip(found.via, KEYS[1:3], strict=True):
        assert recover(f"colonist:key:1\n{old}\n{new.id}".encode(), signature) == old


def test_ten_comes_after_nine(tmp_path: Path) -> None:
    for number, key in ((9, KEYS[0]), (10, KEYS[1])):
        keyfile.write(tmp_path / f"server.key.{number}", key)
    keyfile.write(tmp_path / "server.key", KEYS[2])
    assert [old for old, _ in ring(tmp_path).server_keys().via] == [KEYS[0].id, KEYS[1].id]


@pytest.mark.parametrize("name", ["server.key", "server.key.1", "server.key.next"])
def test_a_key_that_others_can_read_stops_the_start(tmp_path: Path, name: str) -> None:
    for each in {"server.key", name}:
        keyfile.write(tmp_path / each, KEYS[0])
    (tmp_path / name).chmod(0o644)
    with pytest.raises(InvalidValueError, match=f"{name} has mode 0644"):
        ring(tmp_path).server_keys()


def test_a_link_that_leads_nowhere_is_not_a_first_start(tmp_path: Path) -> None:
    for name in ("server.key", "server-owner.key"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    for look in (ring(tmp_path).server_keys, ring(tmp_path).owner_id):
        with pytest.raises(InvalidValueError, match="symbolic link"):
            look()


def test_keys_are_made_and_read_under_the_passphrase_that_is_given(tmp_path: Path) -> None:
    secret_file.write(tmp_path / "passphrase", b"hush-hush\n")
    given = {"COLONIST_PASSPHRASE_FILE": str(tmp_path / "passphrase")}
    folder = tmp_path / "keys"
    made = ring(folder, **given).server_keys().id
    assert b'"sealed"' in (folder / "server.key").read_bytes()
    assert ring(folder, **given).server_keys().id == made


def test_the_keys_may_be_credentials_of_systemd(tmp_path: Path) -> None:
    """Root's, mode 0440, in a folder that nobody writes to."""
    for name, key in (("server.key", KEYS[1]), ("server.key.1", KEYS[0])):
        keyfile.write(tmp_path / name, key)
        (tmp_path / name).chmod(0o440)
    found = ring(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path)).server_keys()
    assert (found.id, found.ids) == (KEYS[1].id, {KEYS[0].id, KEYS[1].id})
    with pytest.raises(InvalidValueError, match="mode 0440"):
        ring(tmp_path).server_keys()


def test_nobody_is_asked_for_the_owners_passphrase(tmp_path: Path) -> None:
    """The server needs that id only."""
    secret_file.write(tmp_path / "server-owner.key", lock(KEYS[0], b"hush-hush", Cost(n=1 << 14)))
    assert ring(tmp_path).owner_id() == KEYS[0].id


# -- the archive's address


def test_the_archives_address_may_be_in_a_file(tmp_path: Path) -> None:
    address = "postgresql://colonist:sesame@h/d"
    secret_file.write(tmp_path / "archive", f"{address}\n".encode())
    for environment in (
        {"COLONIST_ARCHIVE": address},
        {"COLONIST_ARCHIVE_FILE": str(tmp_path / "archive")},
        {"COLONIST_ARCHIVE_FILE": "archive", "CREDENTIALS_DIRECTORY": str(tmp_path)},
    ):
        assert archive_address("", environment) == address
        assert archive_address("sqlite:x", environment) == "sqlite:x"
    assert archive_address("", {}) == ""
    with pytest.raises(InvalidValueError, match="both COLONIST_ARCHIVE and") as raised:
        archive_address("", {"COLONIST_ARCHIVE": address, "COLONIST_ARCHIVE_FILE": "x"})
    assert "sesame" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    ["postgresql://u:sesame@h/d", "postgresql://h/d?password=sesame", "postgres://u:sesame@h/d"],
)
def test_a_password_in_a_flag_is_refused(address: str) -> None:
    with pytest.raises(InvalidValueError, match="COLONIST_ARCHIVE_FILE") as raised:
        configure([f"--archive={address}"])
    assert "sesame" not in str(raised.value)


def test_a_key_is_changed_in_two_steps_that_may_be_repeated(tmp_path: Path) -> None:
    found = ring(tmp_path)
    first = found.server_keys().id
    for number in (1, 2):
        coming = found.prepare()
        assert found.prepare() == coming
        ready = found.server_keys()
        assert (ready.id, coming in ready.ids) == (first, True)
        assert found.change() == coming
        assert keyfile.id_of(tmp_path / f"server.key.{number}") == first
        keys = found.server_keys()
        assert (keys.id, keys.coming, keys.via[-1][0]) == (coming, None, first)
        with pytest.raises(InvalidValueError, match="make it ready"):
            found.change()
        first = coming
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_change_that_was_cut_short_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ring(tmp_path)
    first, coming = found.server_keys().id, found.prepare()

    def crash(*_: object) -> None:
        raise OSError("the power is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crash)
        with pytest.raises(OSError, match="power"):
            found.change()
    assert found.server_keys().id == first  # a start in between
    assert found.change() == coming
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["server.key", "server.key.1"]


def test_a_folder_without_a_key_is_told(tmp_path: Path) -> None:
    for step in (ring(tmp_path).prepare, ring(tmp_path).change):
        with pytest.raises(InvalidValueError, match="is this the folder"):
            step()


def test_a_passphrase_goes_on_over_a_change(tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    folder = tmp_path / "keys"
    found = ring(folder, COLONIST_PASSPHRASE_FILE=str(secret))
    first = found.server_keys().id
    coming = found.prepare()
    found.change()
    assert found.server_keys().id == coming
    assert keyfile.id_of(folder / "server.key.1") == first
    assert all(b"scrypt" in path.read_bytes() for path in folder.iterdir())
