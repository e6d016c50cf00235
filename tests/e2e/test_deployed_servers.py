"""Servers started by the words of compose.yaml, on a real etcd and PostgreSQL."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from deploy import prepare
from tests.support.broker import free_port
from tests.support.deployment import SERVER, services
from tests.support.etcd import Options, running_cluster
from tests.support.postgres import PASSWORD, postgres

pytestmark = pytest.mark.e2e

START_S = 40.0
QUOTA_BYTES = 8_589_934_592


async def test_three_servers_start_and_one_leads(tmp_path: Path) -> None:
    prepare.prepare("compose", tmp_path)
    escaped = re.sub(r"([\\:])", r"\\\1", PASSWORD)
    (tmp_path / "secrets" / "pgpass").write_text(f"*:*:*:colonist:{escaped}\n")
    secret = (tmp_path / "secrets" / "server.env").read_text().strip().partition("=")[2]
    environment = {
        "PATH": "/usr/bin:/bin",
        "COLONIES_SERVER_ID": secret,
        "PGPASSFILE": str(tmp_path / "secrets" / "pgpass"),
    }
    with running_cluster(3, Options(quota_bytes=QUOTA_BYTES)) as etcd, postgres() as sql:
        swaps = {f"etcd-{number + 1}:2379": at for number, at in enumerate(etcd.endpoints)}
        swaps |= {
            "--keys=/keys": f"--keys={tmp_path}/secrets/keys",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "postgresql://colonist@postgres/colonist": sql.url(),
        }
        ports, running = [], []
        try:
            for service in services(SERVER).values():
                ports.append(free_port())
                flags = "\n".join(service["command"])
                for before, after in (*swaps.items(), ("--port=50080", f"--port={ports[-1]}")):
                    assert before in flags
                    flags = flags.replace(before, after)
                running.append(start([*SERVER[1:], *flags.split("\n")], environment, tmp_path))
            async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
                ready = await asyncio.gather(*(until_ready(session, port) for port in ports))
                assert all(text.startswith("ok") for text in ready)
                while sum([await leads(session, port) for port in ports]) != 1:
                    await asyncio.sleep(0.1)
            for each in running:
                each.send_signal(signal.SIGTERM)
            assert [each.wait(20) for each in running] == [0, 0, 0]
        except (TimeoutError, AssertionError):
            sys.stderr.write((tmp_path / "servers.log").read_text()[-3000:])
            raise
        finally:
            for each in running:
                each.kill()
                each.wait(10)


def start(words: list[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    with (folder / "servers.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *words], env={**kept, **environment}, stdout=log, stderr=log
        )


async def until_ready(session: aiohttp.ClientSession, port: int) -> str:
    while True:
        try:
            async with session.get(f"http://127.0.0.1:{port}/readyz") as reply:
                if reply.status == 200:
                    return await reply.text()
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)  # another process: there is nothing to wait on


async def leads(session: aiohttp.ClientSession, port: int) -> bool:
    async with session.get(f"http://127.0.0.1:{port}/metrics") as reply:
        return "\ncolonist_is_leader 1\n" in await reply.text()
