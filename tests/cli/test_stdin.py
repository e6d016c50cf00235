"""What comes in by stdin, and Ctrl-C meanwhile."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import Callable

import pytest

from colonist_cli import arguments, stdin
from colonist_cli.command import guarded
from colonist_cli.exits import CliError, Exit


class Interrupted(io.RawIOBase):
    """Where nobody types anything, but Ctrl-C while it is read."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return 0


def given(monkeypatch: pytest.MonkeyPatch, data: io.RawIOBase | io.BytesIO) -> None:
    reader = data if isinstance(data, io.BytesIO) else io.BufferedReader(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(reader, encoding="utf-8"))


@pytest.mark.parametrize(
    "read",
    [
        lambda: stdin.line("card: "),
        lambda: list(stdin.lines()),
        lambda: arguments.read_bytes("-", 100),
    ],
)
def test_the_first_ctrl_c_ends_a_command_that_reads(
    read: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, Interrupted())
    passed: list[object] = []

    async def work() -> None:
        passed.append(read())
        await asyncio.sleep(0)

    before = signal.getsignal(signal.SIGINT)
    assert guarded(work) is Exit.INTERRUPTED
    assert passed == []
    assert signal.getsignal(signal.SIGINT) is before


def test_a_person_is_asked_and_a_pipe_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, io.BytesIO("blå\nbär\n\nend".encode()))
    assert stdin.line("card: ") == "blå"
    assert list(stdin.lines()) == ["bär", "", "end"]
    assert capsys.readouterr().err == ""
    given(monkeypatch, io.BytesIO(b"typed\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert stdin.line("card: ") == "typed"
    assert capsys.readouterr().err == "card: "


def test_what_is_no_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, io.BytesIO(b"a\xff\n"))
    with pytest.raises(CliError, match="stdin") as caught:
        stdin.line("card: ")
    assert caught.value.exit is Exit.USAGE
