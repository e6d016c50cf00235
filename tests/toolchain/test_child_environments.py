"""What a program of ours starts finds no secret in its environment, where others could read it."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from colonist_cli.audit.crew import crew
from colonist_cli.audit.work import Task
from colonist_client import memory
from colonist_protocol.audit import Header
from colonist_protocol.audit_events import Frame
from colonist_protocol.audit_reading import Servers
from colonist_protocol.envelope import Unsigned
from colonist_protocol.identity import Identity
from colonist_server.rpc.signing import Beside, beside
from colonist_server.store.opening import open_store

ID = "ab" * 32
SECRET = "f00d5ecf"  # noqa: S105 - what is looked for
SECRETS = {
    f"{name}{ending}": SECRET
    for name in (
        "COLONIES_PRVKEY",
        "COLONIES_COLONY_PRVKEY",
        "COLONIES_SERVER_PRVKEY",
        "COLONIST_AGENT_PASSWORD",
        "COLONIST_ARCHIVE",
        "COLONIST_BRIDGE_PASSWORD",
        "COLONIST_ETCD_PASSWORD",
        "COLONIST_PASSPHRASE",
    )
    for ending in ("", "_FILE")
} | dict.fromkeys(("COLONIST_AGENT_KEY_FILE", "CREDENTIALS_DIRECTORY"), SECRET)
FOREIGN = dict.fromkeys(("PGPASSWORD", "PGPASSFILE", "AWS_SECRET_ACCESS_KEY"), SECRET)
PLAIN = {"COLONIST_DEBUGGABLE": "true", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}


@asynccontextmanager
async def writing(folder: Path) -> AsyncGenerator[None]:
    """A store with its writer."""
    async with await open_store(f"sqlite:{folder / 't.db'}", separate_writer=True):
        yield


@asynccontextmanager
async def signing(folder: Path) -> AsyncGenerator[None]:
    """The process that signs."""
    del folder
    async with beside(Identity(bytes(31) + b"\1")) as signer:
        assert isinstance(signer, Beside)
        async with asyncio.timeout(20):
            while not signer.is_beside:
                reply = Unsigned("a", b"{}", b"{}", is_error=False)
                await asyncio.gather(signer.sign(reply), signer.sign(reply))
        yield


@asynccontextmanager
async def verifying(folder: Path) -> AsyncGenerator[None]:
    """The processes of a verification."""
    path = folder / "colony.jsonl"
    path.touch()
    header = Header(v=1, colony="home", server=ID, via=(), made=0)
    with crew(Task(path, Frame("home", "00" * 4, Servers(header, ID))), 2) as hands:
        assert list(hands.map(divmod, [5, 7], [3, 3])) == [(1, 2), (2, 1)]
        yield


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows environments")
@pytest.mark.parametrize("started", [writing, signing, verifying])
async def test_a_child_finds_no_secret(
    started: Callable[[Path], AbstractAsyncContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (SECRETS | FOREIGN | PLAIN).items():
        monkeypatch.setenv(name, value)
    before = children()
    async with started(tmp_path):
        found = {pid: text for pid, text in children().items() if pid not in before}
    assert found
    for text in found.values():
        assert SECRET not in text
        assert all(f"{name}={value}\0" in text for name, value in PLAIN.items())
    assert all(os.environ[name] == SECRET for name in SECRETS | FOREIGN)


def children() -> dict[int, str]:
    """The environments of the processes that this one has started, as everybody would see them."""
    lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    pids = [int(pid) for text in lists for pid in text.split()]
    return {pid: Path(f"/proc/{pid}/environ").read_text() for pid in pids}


def test_a_program_of_others_keeps_what_is_not_ours() -> None:
    plain = FOREIGN | PLAIN | {"COLONIES_COLONY_NAME": "home"}
    assert memory.for_others(SECRETS | plain) == plain
