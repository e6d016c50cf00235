"""Where secrets come from: files, credentials, a terminal; never two at once, never nothing."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colonist_client import secret_file
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError

KEY = Path("some.key")
AGAIN_S = 1.0
ANSWER_S = 10.0
"""Longer than a program takes to say something at a terminal."""


def nobody(prompt: str) -> str:
    raise AssertionError(f"asked: {prompt}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """systemd's folder of credentials."""
    made = tmp_path / "credentials"
    made.mkdir()
    secret_file.write(made / "etcd", b"of etcd\n")
    return made


def file(tmp_path: Path, content: bytes = b"from a file\n") -> str:
    secret_file.write(tmp_path / "file", content)
    return str(tmp_path / "file")


def test_a_bare_name_is_a_credential_where_there_is_one(folder: Path) -> None:
    custody = Custody({"CREDENTIALS_DIRECTORY": str(folder)})
    assert custody.find("etcd") == folder / "etcd"
    assert custody.find("other") == Path("other")
    assert custody.find("./etcd") == Path("./etcd")
    assert custody.find("/etc/etcd") == Path("/etc/etcd")
    assert Custody({}).find("etcd") == Path("etcd")


def test_a_credential_has_its_own_rule_of_modes_and_nothing_else(folder: Path) -> None:
    (folder / "etcd").chmod(0o440)
    inside, outside = Custody({"CREDENTIALS_DIRECTORY": str(folder)}), Custody({})
    for name in ("etcd", str(folder / "etcd")):
        assert inside.password(name, "password") == "of etcd"
        inside.check(inside.find(name), "password")
    with pytest.raises(InvalidValueError, match="chmod 600"):
        outside.password(str(folder / "etcd"), "password")
    with pytest.raises(InvalidValueError, match="chmod 600"):
        outside.check(folder / "etcd", "password")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"a\0b", "no text"), (b"\xff", "no text in UTF-8")],
)
def test_a_password_is_some_text(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as raised:
        Custody({}).password(file(tmp_path, content), "password_file")
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_spaces_belong_to_a_password_and_line_ends_do_not(tmp_path: Path) -> None:
    assert Custody({}).password(file(tmp_path, b" a b \r\n"), "x") == " a b "


def test_a_secret_is_in_a_variable_or_in_its_file(tmp_path: Path) -> None:
    name = file(tmp_path)
    assert Custody({"A": "x"}).secret("A", "a") == "x"
    assert Custody({"A_FILE": name, "A": ""}).secret("A", "a") == "from a file"
    assert Custody({}).secret("A", "a") == ""
    with pytest.raises(InvalidValueError, match="both A and A_FILE are set"):
        Custody({"A": "x", "A_FILE": name}).secret("A", "a")


# -- the passphrase


def test_the_passphrase_comes_from_the_file_that_is_named(tmp_path: Path, folder: Path) -> None:
    secret_file.write(folder / "colonist-passphrase", b"of systemd\n")
    environment = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert Custody(environment, nobody).passphrase(KEY) == b"of systemd"
    environment["COLONIST_PASSPHRASE_FILE"] = file(tmp_path)
    assert Custody(environment, nobody).passphrase(KEY) == b"from a file"
    environment |= {"COLONIST_PASSPHRASE_FILE": "etcd"}
    assert Custody(environment, nobody).passphrase(KEY) == b"of etcd"


def test_somebody_is_asked_where_it_is_in_no_file(folder: Path) -> None:
    prompts: list[str] = []

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return "typed"

    custody = Custody({"CREDENTIALS_DIRECTORY": str(folder)}, typed)
    assert custody.configured() is None
    assert custody.passphrase(KEY) == b"typed"
    assert prompts == ["Passphrase of some.key: "]


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_no_passphrase(tmp_path: Path, content: bytes) -> None:
    custody = Custody({"COLONIST_PASSPHRASE_FILE": file(tmp_path, content)}, nobody)
    with pytest.raises(InvalidValueError, match=r"COLONIST_PASSPHRASE_FILE .* is empty"):
        custody.passphrase(KEY)


def test_a_file_that_is_wide_or_not_there_is_not_passed_over(tmp_path: Path) -> None:
    name = file(tmp_path)
    Path(name).chmod(0o644)
    for each in (name, str(tmp_path / "nowhere")):
        with pytest.raises(InvalidValueError, match="COLONIST_PASSPHRASE_FILE"):
            Custody({"COLONIST_PASSPHRASE_FILE": each}, nobody).passphrase(KEY)


def test_a_credential_that_cannot_be_used_is_not_passed_over(folder: Path) -> None:
    (folder / "colonist-passphrase").symlink_to(folder / "nothing")
    with pytest.raises(InvalidValueError, match="symbolic link"):
        Custody({"CREDENTIALS_DIRECTORY": str(folder)}, nobody).passphrase(KEY)


def test_typing_nothing_is_no_passphrase() -> None:
    with pytest.raises(InvalidValueError, match="1 to 1024 bytes"):
        Custody({}, lambda _: "").passphrase(KEY)
    with pytest.raises(InvalidValueError, match="1 to 1024 bytes"):
        Custody({}, lambda _: "x" * 1025).passphrase(KEY)


def test_a_passphrase_in_a_variable_is_refused_unseen() -> None:
    with pytest.raises(InvalidValueError, match="COLONIST_PASSPHRASE_FILE") as raised:
        Custody({"COLONIST_PASSPHRASE": "in-the-open"}, nobody).passphrase(KEY)
    assert "in-the-open" not in str(raised.value)


def test_a_new_passphrase_is_typed_twice_and_long_enough() -> None:
    answers = ["long enough", "long enough", "long enough", "long enougH", "1234567"]
    custody = Custody({}, lambda _: answers.pop(0))
    assert custody.new_passphrase(KEY) == b"long enough"
    with pytest.raises(InvalidValueError, match="not the same the second time"):
        custody.new_passphrase(KEY)
    with pytest.raises(InvalidValueError, match="8 characters or more"):
        custody.new_passphrase(KEY)


def test_a_custody_shows_no_secret() -> None:
    assert "hush" not in repr(Custody({"COLONIES_PRVKEY": "hush"}))


# -- the terminal

ASK = """
import asyncio, fcntl, signal, sys, termios
from pathlib import Path
from colonist_client.custody import Custody
from colonist_protocol.errors import InvalidValueError
fcntl.ioctl(0, termios.TIOCSCTTY, 0)

async def ask():
    # As a server does, which must still be stopped while it asks.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print, "heard later")
    print("got", Custody({}).passphrase(Path("a.key")).hex())

try:
    if sys.argv[1:]:
        import uvloop
        uvloop.run(ask())
    asyncio.run(ask())
except InvalidValueError as error:
    print(error)
except KeyboardInterrupt:
    print("interrupted")
"""


def at_a_terminal(typed: bytes, *loop: str) -> str:
    """What a program shows on a terminal where this is typed once it has asked."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", ASK, *loop],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, until = b"", time.monotonic() + ANSWER_S
    with contextlib.suppress(OSError):  # the terminal's end is an error, on Linux
        while time.monotonic() < until:
            is_shown = select.select([ours], [], [], AGAIN_S)[0]
            shown += os.read(ours, 1024) if is_shown else b""
            # Again where it is not heard: a signal between the interpreter's last look and the read
            # waits for the next one.
            if shown.endswith(b"a.key: "):
                os.write(ours, typed)
    child.kill()
    child.wait()
    os.close(ours)
    return shown.decode()


def test_what_is_typed_at_a_terminal_is_not_shown() -> None:
    shown = at_a_terminal(b"hush-hush\n")
    assert "Passphrase of a.key: " in shown
    assert f"got {b'hush-hush'.hex()}" in shown
    assert "hush-hush" not in shown


def test_ctrl_c_ends_the_question_and_ctrl_d_is_no_answer() -> None:
    assert "interrupted" in at_a_terminal(b"\x03")
    assert "interrupted" in at_a_terminal(b"\x03", "uvloop")
    assert "nothing was typed" in at_a_terminal(b"\x04")


def test_without_a_terminal_nothing_is_read_from_the_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a script pipes in is its data, and would be shown."""
    reading, writing = os.pipe()
    os.write(writing, b"piped-in\n")
    os.close(writing)
    real = os.open

    def no_terminal(path: str, *more: int, **named: object) -> int:
        if path == "/dev/tty":
            raise OSError(6, "No such device or address")
        return real(path, *more, **named)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(os, "open", no_terminal)
    before = signal.getsignal(signal.SIGINT)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(InvalidValueError, match=r"no terminal.*COLONIST_PASSPHRASE_FILE"):
            Custody({}).passphrase(KEY)
        assert stream.read() == "piped-in\n"
    assert signal.getsignal(signal.SIGINT) is before
