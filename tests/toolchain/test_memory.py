"""Every program with a key keeps its memory to itself, from before it reads the key."""

import subprocess
import sys

import pytest

from tests.support.colonist import ROOT

DUMPABLE = "import ctypes; print('dumpable', ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
"""What a core dump or a debugger of the same user would be told."""

SERVER = "from colonist_server import main as m; m.run_blocking(m.configure(['--keys=/dev/null']))"
SIGNING = """
import socket, sys
from colonist_server.rpc import signing_process
ours, theirs = socket.socketpair()
ours.sendall(bytes(31) + bytes([1]))
ours.shutdown(socket.SHUT_WR)
sys.argv = ["", str(theirs.detach())]
signing_process.main()
"""
WRITER = """
import pathlib, socket, sys, tempfile
from colonist_server.store import file, writer_process
ours, theirs = socket.socketpair()
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "t.db")
    file.open_file(path, file.connect)
    ours.shutdown(socket.SHUT_WR)
    sys.argv = ["", str(path), str(theirs.detach())]
    writer_process.main()
"""
VERIFYING = """
import pathlib
from colonist_cli.audit import work
from colonist_protocol.audit_events import Frame
work.begin(work.Task(pathlib.Path("pyproject.toml"), Frame("", "", None)))
"""
AGENT = "from colonist_agent.main import main; main(['--check'])"
BRIDGE = "from colonist_bridge.main import main; main(['--name', ''])"
CLI = """
from typer.testing import CliRunner
from colonist_cli.main import app
CliRunner().invoke(app, ["key", "show", "/nowhere/at/all"], obj={})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells whether a program is dumpable")
@pytest.mark.parametrize(
    "program",
    [SERVER, SIGNING, WRITER, AGENT, BRIDGE, CLI, VERIFYING],
    ids=["server", "signing", "writer", "agent", "bridge", "cli", "verifying"],
)
def test_a_program_closes_its_memory(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{DUMPABLE}"],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.endswith("dumpable 0\n"), done.stdout + done.stderr
