"""Files of secrets: refused where anybody else can get at them, never half written."""

import os
import socket
import stat
from pathlib import Path

import pytest

from colonist_client import secret_file
from colonist_protocol.errors import InvalidValueError

WHAT = "key file"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "secret"
    secret_file.write(made, b"hush")
    return made


def refused(path: Path, *, is_credential: bool = False) -> str:
    """What both `read` and `check` say; they agree."""
    told = []
    for look in (secret_file.read, secret_file.check):
        with pytest.raises(InvalidValueError) as raised:
            look(path, WHAT, is_credential=is_credential)
        told.append(str(raised.value))
        assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert told[0] == told[1]
    assert "hush" not in told[0]
    assert told[0].startswith(f"{WHAT} {path}")
    return told[0]


def test_it_is_written_for_its_owner_only(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_nlink == 1
    assert secret_file.read(path, WHAT) == b"hush"
    secret_file.check(path, WHAT)


def test_an_open_umask_opens_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        secret_file.make_folder(tmp_path / "keys")
        secret_file.write(tmp_path / "keys" / "a", b"x")
        secret_file.replace(tmp_path / "keys" / "a", b"y")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o660, 0o666, 0o440])
def test_a_mode_wider_than_0600_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert f"mode {mode:04o}: others can get at it; chmod 600 {path}" in refused(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_mode_of_0600_or_less_will_do(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert secret_file.read(path, WHAT) == b"hush"


def test_a_file_of_somebody_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    us = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: us + 1)
    assert f"belongs to user {us}, not to us ({us + 1}); chown" in refused(path)


def test_a_link_is_refused_wherever_it_leads(path: Path, tmp_path: Path) -> None:
    for name, target in (("good", path), ("away", tmp_path / "nothing")):
        link = tmp_path / name
        link.symlink_to(target)
        assert "is a symbolic link: name the file itself" in refused(link)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        assert "is no regular file" in refused(tmp_path / name)
    assert "is no regular file" in refused(Path("/dev/null"))
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(str(tmp_path / "socket"))
        with pytest.raises(InvalidValueError):
            secret_file.read(tmp_path / "socket", WHAT)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nothing")
    with pytest.raises(InvalidValueError, match="cannot be read"):
        secret_file.read(Path("a\0b"), WHAT)


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    secret_file.write(tmp_path / "large", bytes(secret_file.MAX_BYTES + 1))
    with pytest.raises(InvalidValueError, match="too large"):
        secret_file.read(tmp_path / "large", WHAT)


# -- systemd's credentials: root's, mode 0440 with an access list


def test_a_credential_may_be_readable_for_the_group_and_for_nobody_else(path: Path) -> None:
    path.chmod(0o440)
    assert secret_file.read(path, WHAT, is_credential=True) == b"hush"
    for mode in (0o444, 0o460, 0o450, 0o402):
        path.chmod(mode)
        assert f"mode {mode:04o}" in refused(path, is_credential=True)


def test_a_credential_is_roots_or_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr(secret_file, "_ROOT", owner)
    assert secret_file.read(path, WHAT, is_credential=True) == b"hush"
    monkeypatch.setattr(secret_file, "_ROOT", owner + 2)
    assert "belongs to user" in refused(path, is_credential=True)


# -- writing


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_nothing_is_written_over(path: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        secret_file.write(path, b"other")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        secret_file.write(link, b"other")
    assert secret_file.read(path, WHAT) == b"hush"
    assert names(tmp_path) == {"secret", "link"}


def test_replacing_puts_all_of_it_there_or_nothing(path: Path, tmp_path: Path) -> None:
    secret_file.replace(path, b"new")
    assert secret_file.read(path, WHAT) == b"new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        secret_file.replace(tmp_path / "folder", b"x")
    assert names(tmp_path) == {"secret", "folder"}


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("write", [secret_file.write, secret_file.replace])
def test_a_full_disk_leaves_nothing_half_written(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(write)
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "new", b"hush")
    assert names(tmp_path) == set()


def test_the_content_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_folder, (tmp_path / "new").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    secret_file.write(tmp_path / "new", b"hush")
    assert seen == [(False, False), (True, True)]


def test_a_file_system_without_hard_links_will_do(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    secret_file.write(tmp_path / "new", b"hush")
    assert secret_file.read(tmp_path / "new", WHAT) == b"hush"
    with pytest.raises(FileExistsError):
        secret_file.write(path, b"other")
    assert names(tmp_path) == {"secret", "new"}
