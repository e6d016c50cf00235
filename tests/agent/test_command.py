"""Commands: allow-listed programs, no shell, bounded in time and output, killed as a group."""

import asyncio
import contextlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from colonist_agent.children import Children
from colonist_agent.command import Command, CommandSpec, Parameter
from colonist_agent.context import Context
from colonist_agent.mailbox import Mailbox
from colonist_agent.outcome import FailError
from colonist_agent.watch import Watch
from colonist_client.client import Client
from colonist_client.retry import Backoff
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import Process
from tests.support.fake_server import FakeServer
from tests.support.transports import DirectTransport

PYTHON = sys.executable


def _context() -> Context:
    process = Process(
        processid="1" * 64,
        initiatorid="",
        initiatorname="",
        assignedexecutorid="",
        isassigned=True,
        state=1,
        prioritytime=0,
        submissiontime="",
        spec=FunctionSpec(),
    )
    mailbox = Mailbox(process.processid, limit=10, wake=asyncio.Event())
    client = Client(DirectTransport(FakeServer().answer), None)
    watch = Watch(client, backoff=Backoff(uniform=lambda low, _: low))
    return Context(process, mailbox, Children(process, watch))


def _command(argv: list[str], **spec: Any) -> Command:
    return Command("c", CommandSpec(argv=argv, **spec), environment={"A": "1", "B": "secret"})


async def _run(command: Command, *args: Any, **kwargs: Any) -> str:
    return await command.run(_context(), list(args), kwargs)


async def test_placeholders_become_whole_arguments_and_no_shell_sees_them() -> None:
    command = _command(
        [PYTHON, "-c", "import sys; print(sys.argv[1:])", "-n{count}", "{text}"],
        parameters={"text": Parameter(), "count": Parameter(type="int", default=1, min=1, max=9)},
    )
    assert await _run(command, "a b; rm -rf / $HOME `id`") == (
        "['-n1', 'a b; rm -rf / $HOME `id`']\n"
    )
    assert await _run(command, "x", count="3") == "['-n3', 'x']\n"


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [
        (Parameter(), "-rf", "starts with '-'"),
        (Parameter(), "a\x00b", "control character"),
        (Parameter(), "x" * 5000, "too long"),
        (Parameter(), 7, "is no text"),
        (Parameter(pattern="[a-z]+"), "abc1", "does not match"),
        (Parameter(choices=["a", "b"]), "c", "is none of"),
        (Parameter(type="int"), "many", "is no int"),
        (Parameter(type="int", min=1, max=3), 4, "is not between 1 and 3"),
        (Parameter(type="float"), "nan", "is not between"),
        (Parameter(type="float"), "inf", "is not between"),
    ],
)
async def test_value_outside_of_what_is_declared_is_refused(
    parameter: Parameter, value: Any, reason: str
) -> None:
    command = _command([PYTHON, "{x}"], parameters={"x": parameter})
    with pytest.raises(FailError, match=reason):
        await _run(command, value)


@pytest.mark.parametrize(
    ("args", "kwargs", "reason"),
    [
        ([], {}, "argument 'x' is missing"),
        (["1", "2"], {}, "takes 1 arguments, 2 given"),
        (["1"], {"x": "2"}, "unexpected argument 'x'"),
        (["1"], {"y": "2"}, "unexpected argument 'y'"),
    ],
)
async def test_arguments_that_are_not_declared_are_refused(
    args: list[str], kwargs: dict[str, str], reason: str
) -> None:
    command = _command([PYTHON, "{x}"], parameters={"x": Parameter()})
    with pytest.raises(FailError, match=reason):
        await _run(command, *args, **kwargs)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"argv": []}, "absolute path"),
        ({"argv": ["ls"]}, "absolute path"),
        ({"argv": ["/bin/{x}"], "parameters": {"x": Parameter()}}, "absolute path"),
        ({"argv": ["/bin/ls", "{x}"]}, "differ: x"),
        ({"argv": ["/bin/ls"], "parameters": {"x": Parameter()}}, "differ: x"),
        ({"argv": ["/bin/ls"], "timeout_s": 0}, "timeout_s"),
        ({"argv": ["/bin/ls"], "directory": "here"}, "directory"),
        ({"argv": ["/bin/ls", "{x}"], "parameters": {"x": Parameter(pattern="[")}}, "pattern"),
        (
            {"argv": ["/bin/ls", "{x}"], "parameters": {"x": Parameter(type="int", default="y")}},
            "its default is no int",
        ),
    ],
)
def test_declaration_that_cannot_work_is_refused_at_the_start(
    spec: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        Command("c", CommandSpec(**spec), environment={})


async def test_only_listed_variables_reach_the_program(tmp_path: Path) -> None:
    command = _command(
        [PYTHON, "-c", "import os; print(os.environ.get('A'), os.environ.get('B'), os.getcwd())"],
        directory=str(tmp_path),
        environment=["A", "C"],
    )
    assert await _run(command) == f"1 None {tmp_path}\n"


async def test_failing_program_fails_with_its_status_and_the_end_of_its_errors() -> None:
    command = _command([PYTHON, "-c", "import sys; sys.stderr.write('x' * 9000 + 'why'); exit(3)"])
    with pytest.raises(FailError) as raised:
        await _run(command)
    status, tail = raised.value.reasons
    assert status == "c: exit status 3"
    assert tail.endswith("why")
    assert len(tail) <= 4096


async def test_program_that_is_not_there_fails_clearly() -> None:
    with pytest.raises(FailError, match="/nowhere/at/all: No such file or directory"):
        await _run(_command(["/nowhere/at/all"]))


async def test_program_that_says_too_much_is_killed() -> None:
    command = _command(
        [PYTHON, "-c", "while True: print('x' * 1000)"], max_output_bytes=10_000, timeout_s=60
    )
    with pytest.raises(FailError, match="wrote more than 10000 bytes"):
        await _run(command)


# Says its children's ids through a file, so that a test can see them go.
FAMILY = """
import os, signal, sys, time
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    time.sleep(1000)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {child}")
if sys.argv[2] != "leave":
    time.sleep(1000)
"""


def _family(tmp_path: Path, kind: str, **spec: Any) -> tuple[Command, Path]:
    script, ids = tmp_path / "family.py", tmp_path / "ids"
    script.write_text(FAMILY)
    if kind == "stubborn":
        os.mkfifo(ids)  # whoever reads it waits until the program has written it
    return _command([PYTHON, str(script), str(ids), kind], **spec), ids


def _gone(family: str) -> bool:
    return all(_ends(int(pid)) for pid in family.split())


def _ends(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # A kill is on its way, not done, when it returns.
        return bool(select.select([process], [], [], 5)[0])
    finally:
        os.close(process)


async def test_program_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    command, ids = _family(tmp_path, "polite", timeout_s=1.5)
    with pytest.raises(FailError, match=r"took longer than 1\.5 s"):
        await _run(command)
    assert _gone(ids.read_text())


async def test_cancelled_program_that_ignores_term_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonist_agent.command.KILL_AFTER_S", 0.2)
    command, ids = _family(tmp_path, "stubborn")
    task = asyncio.get_running_loop().create_task(_run(command))
    family = await asyncio.to_thread(ids.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _gone(family)


async def test_children_left_behind_neither_delay_the_result_nor_stay(tmp_path: Path) -> None:
    command, ids = _family(tmp_path, "leave", timeout_s=30)
    async with asyncio.timeout(20):
        assert await _run(command) == ""
    assert _gone(ids.read_text())


KILLED_AGENT = """
import asyncio
from colonist_agent.command import Command, CommandSpec

class Telling(Command):
    async def _start(self, argv):
        process = await super()._start(argv)
        print(process.pid, flush=True)
        return process

spec = CommandSpec(argv=["/bin/sleep", "60"])
asyncio.run(Telling("c", spec, environment={}).run(None, [], {}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels have no such call")
async def test_program_does_not_outlive_an_agent_that_is_killed() -> None:
    agent = await asyncio.create_subprocess_exec(
        PYTHON, "-c", KILLED_AGENT, stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    async with asyncio.timeout(20):
        program = int(await agent.stdout.readline())
        watched = os.pidfd_open(program)
        try:
            agent.kill()
            await agent.wait()
            ended, _, _ = select.select([watched], [], [], 10)
            assert ended
        finally:
            os.close(watched)
            with contextlib.suppress(ProcessLookupError):
                os.kill(program, signal.SIGKILL)
