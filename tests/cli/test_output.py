"""Tables for people, JSON for programs, exit codes for the shell."""

import asyncio
import io
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from colonist_cli import tables
from colonist_cli.command import guarded
from colonist_cli.exits import MEANINGS, CliError, Exit, verdict
from colonist_cli.output import Form, Screen, clean, escape_what_stdout_lacks, note
from colonist_cli.settings import Signer
from colonist_cli.shell import doubted, told_of
from colonist_client.caller import OutcomeUnknownError
from colonist_client.failure import ServerError
from colonist_client.sealer import NotGenuineError
from colonist_client.transport import NotSentError
from colonist_protocol.colony import Colony, MemberChange
from colonist_protocol.envelope import Failure
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.executor import Executor
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.process import Process

COLONY = Colony(colonyid="1" * 64, name="home")

PROCESS = Process(
    processid="2" * 64,
    initiatorid="3" * 64,
    initiatorname="user",
    assignedexecutorid="",
    isassigned=False,
    state=2,
    prioritytime=0,
    submissiontime="2026-01-02T03:04:05.000000Z",
    starttime="2026-01-02T03:04:05.250000Z",
    endtime="2026-01-02T03:06:05.250000Z",
    spec=FunctionSpec(
        funcname="sample", args=msgspec.Raw(b'["cpu",5]'), kwargs=msgspec.Raw(b'{"a":true}')
    ),
    out=msgspec.Raw('["blåbär", 1, "two\\nlines\\u001b[31m"]'.encode()),
)


def test_a_list_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().rows(tables.COLONIES, [COLONY], empty="none")
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "ID"]
    assert row.split() == ["home", "1" * 64]


def test_a_table_in_a_pipe_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    colonies = [Colony(colonyid="1" * 64, name="n" * 300)]
    Screen().rows(tables.COLONIES, colonies, empty="none")
    assert "n" * 300 in capsys.readouterr().out


def test_an_empty_list_is_said_to_people_only(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().rows(tables.COLONIES, [], empty="no colonies yet")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no colonies yet\n")
    Screen(Form.JSON).rows(tables.COLONIES, [], empty="no colonies yet")
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err) == ([], "")


def test_json_has_the_protocols_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(Form.JSON).one(tables.PROCESS, PROCESS)
    found = json.loads(capsys.readouterr().out)
    assert found["processid"] == PROCESS.processid
    assert found["out"] == ["blåbär", 1, "two\nlines\x1b[31m"]
    assert found["spec"]["kwargs"] == {"a": True}


def test_one_thing_is_a_line_for_each_property(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().one(tables.PROCESS, PROCESS)
    shown = capsys.readouterr().out
    assert "call          sample(cpu, 5, a=true)" in shown
    assert "state         success" in shown
    assert "errors" not in shown


def test_what_others_wrote_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().one(tables.PROCESS, PROCESS)
    Screen().rows(tables.PROCESSES, [PROCESS], empty="")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b[31m" in shown
    assert clean("a\tb\nc\r\x07\u202eå") == "a\tb\nc\\r\\x07\\u202eå"


EVIL = "a\x1b[2J\x9b2J\u202eb\x7f"


def test_nothing_that_is_told_can_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise ServerError(Failure(status=403, message=EVIL, code="x", retry_after_s=0))

    assert guarded(refused) is Exit.REFUSED
    note(EVIL)
    Screen().line(EVIL)
    Screen(Form.JSON).json({EVIL: [EVIL, "å"]})
    Screen(Form.JSON).json_line({"a": EVIL + "\U000e0001"})
    told = capsys.readouterr()
    assert all(char.isprintable() or char == "\n" for char in told.out + told.err)
    line, *whole, event = told.out.splitlines()
    assert line == clean(EVIL)
    assert json.loads("".join(whole)) == {EVIL: [EVIL, "å"]}
    assert json.loads(event) == {"a": EVIL + "\U000e0001"}


@pytest.mark.parametrize("is_pinned", [False, True])
def test_who_is_refused_for_want_of_a_pin_is_told_so(is_pinned: bool) -> None:
    signer = Signer(Identity(b"\1" * 32), "here")
    failure = Failure(status=403, message="no\nway", code="plain_refused", retry_after_s=0)
    told = told_of(ServerError(failure), signer, is_pinned=is_pinned)
    assert told.exit is Exit.REFUSED
    assert str(told).startswith("refused: no way (signed with the key ")
    assert ("set COLONIST_SERVER_ID" in str(told)) is not is_pinned


@pytest.mark.parametrize("code", ["access_denied", "wrong_server"])
def test_who_is_refused_by_nobody_in_particular_is_told_what_may_be_wrong(code: str) -> None:
    signer = Signer(Identity(b"\1" * 32), "here")
    failure = Failure(status=403, message="no\nway", code=code, retry_after_s=0)
    told = doubted(NotGenuineError("it has no seal", failure), signer, "from there")
    assert told.exit is Exit.UNREACHABLE
    assert str(told).isprintable()
    assert "the pin is from there" in str(told)
    assert ("is it the right one?" in str(told)) is (code == "access_denied")


def test_times_are_for_people() -> None:
    assert tables.span_s(PROCESS.submissiontime, PROCESS.starttime) == 0.25
    assert tables.seconds(0.25) == "250 ms"
    assert tables.seconds(1.2) == "1.20 s"
    assert tables.seconds(120.0) == "2 min 0 s"
    assert tables.seconds(None) == ""
    assert tables.when("0001-01-01T00:00:00Z") == ""


def test_states_are_words() -> None:
    assert [tables.state_name(number) for number in (0, 4, 9)] == ["waiting", "cancelled", "9"]
    executor = Executor(
        executorid="4" * 64, executortype="t", executorname="n", colonyname="c", state=1
    )
    state = next(column for column in tables.EXECUTORS if column.head == "STATE")
    assert state.cell(executor) == "approved"


def refusal(status: int) -> ServerError:
    return ServerError(Failure(status=status, message="no\nway", code="x", retry_after_s=0))


@pytest.mark.parametrize(
    ("error", "exit"),
    [
        (refusal(400), Exit.USAGE),
        (refusal(403), Exit.REFUSED),
        (refusal(404), Exit.NOT_FOUND),
        (refusal(409), Exit.CONFLICT),
        (refusal(429), Exit.UNAVAILABLE),
        (refusal(503), Exit.UNAVAILABLE),
        (NotSentError("no"), Exit.UNREACHABLE),
        (OutcomeUnknownError("no"), Exit.UNREACHABLE),
        (InvalidValueError("no"), Exit.USAGE),
        (CliError(Exit.TIMEOUT, "no"), Exit.TIMEOUT),
        (ExceptionGroup("g", [ExceptionGroup("g", [refusal(404)])]), Exit.NOT_FOUND),
    ],
)
def test_each_kind_of_error_has_its_exit_code_and_one_line(error: Exception, exit: Exit) -> None:
    told = verdict(error)
    assert told is not None
    assert told.exit is exit
    assert "\n" not in str(told)


def test_a_fault_of_ours_shows_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ZeroDivisionError

    assert guarded(work) is Exit.BUG
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyboardInterrupt

    assert guarded(work) is Exit.INTERRUPTED
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_told_in_one_line(unbuffered: str, tmp_path: Path) -> None:
    """Also at the very end of the program, where python writes what it still has."""
    words = (sys.executable, "-m", "colonist_cli.main", "bridge", "acl", "--bridge", "b")
    environment = {"HOME": str(tmp_path), "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            words, stdout=full, stderr=subprocess.PIPE, env=environment, check=False, text=True
        )
    assert done.returncode == Exit.USAGE
    assert done.stderr == "colonist: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_stdout_has_no_letters_for_is_escaped(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", shown)
    escape_what_stdout_lacks()
    Screen(Form.JSON).json_line(["blåbär", "█", "\U0001f600"])
    Screen().line("█")
    shown.seek(0)
    told = shown.read().splitlines()
    assert json.loads(told[0]) == ["blåbär", "█", "\U0001f600"]
    assert told[1] == ("█" if encoding == "utf-8" else "\\u2588")


def test_every_exit_code_is_explained() -> None:
    assert MEANINGS.keys() == set(Exit)


def test_lines_below_each_other_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    parents = [f"{number:064x}" for number in range(25)]
    process = msgspec.structs.replace(
        PROCESS, parents=parents, inputs=msgspec.Raw(b'["a", {"b": 1}]'), processgraphid="9" * 64
    )
    Screen().one(tables.PROCESS, process)
    shown = capsys.readouterr().out
    assert f"parents       {parents[0]}\n              {parents[1]}\n" in shown
    assert "              and 5 more\n" in shown
    assert 'in            a\n              {"b": 1}\n' in shown
    assert f"workflow      {'9' * 64}" in shown


def test_an_event_is_one_line_of_json_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(Form.JSON).json_line(PROCESS)
    Screen(Form.JSON).json_line(PROCESS)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["processid"] for line in lines] == [PROCESS.processid] * 2


def test_the_signature_of_a_change_is_checked() -> None:
    identity = Identity(b"\1" * 32)
    change = MemberChange(
        what="paused",
        by=identity.id,
        timestamp=1,
        payload="cGF1c2U=",
        signature=identity.sign(b"cGF1c2U="),
    )
    assert tables.checked(change) == "good"
    assert tables.checked(msgspec.structs.replace(change, payload="cmVzdW1l")) == "BAD"
    assert tables.checked(msgspec.structs.replace(change, signature="no")) == "BAD"
    assert tables.checked(msgspec.structs.replace(change, payload="")) == "too long to be kept"
    assert tables.checked(msgspec.structs.replace(change, by="")) == ""
