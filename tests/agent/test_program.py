"""The composed agent over HTTP: works, stops on a signal, and the guide's examples run."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from colonist_agent.config import AgentConfig
from colonist_agent.function import Registry
from colonist_agent.main import run
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_protocol.identity import Identity
from tests.support.fake_server import FakeServer, serve

KEY = Identity(bytes(31) + b"\x07")
GUIDE = Path(__file__).parents[2] / "docs/howto/write-an-agent.md"


async def test_agent_over_http_works_and_sigterm_stops_it() -> None:
    server = FakeServer()
    server.approve(KEY.id)
    async with serve(server.answer) as url, asyncio.TaskGroup() as group:
        config = AgentConfig(url=url, colony="home", identity=KEY, slots=2)
        agent = group.create_task(run(config))
        done = await server.until_final(await server.add("echo", "over", "http"))
        assert done.output() == ["over", "http"]
        told = await server.until_final(await server.add("sysinfo"))
        assert '"cpus":' in str(told.output()[0])
        async with Client(HttpTransport(url), KEY) as client:
            await server.until(lambda: len(server.functions) == 5)
            names = {each.funcname for each in await client.functions("home")}
        assert names == {"checksum", "echo", "sample", "sleep", "sysinfo"}
        os.kill(os.getpid(), signal.SIGTERM)
        counters = await agent
    assert counters.succeeded == counters.delivered == 2


async def test_second_signal_stops_at_once() -> None:
    server = FakeServer()
    server.approve(KEY.id)
    async with serve(server.answer) as url, asyncio.TaskGroup() as group:
        config = AgentConfig(url=url, colony="home", identity=KEY, stop_grace_s=1000)
        agent = group.create_task(run(config))
        process_id = await server.add("sleep", 1000)
        await server.until(lambda: server.processes[process_id].isassigned)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(20):
            await agent
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_cancelling_passes_through() -> None:
    server = FakeServer()
    server.approve(KEY.id)
    async with serve(server.answer) as url:
        config = AgentConfig(url=url, colony="home", identity=KEY)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await run(config)


async def test_examples_of_the_guide_run() -> None:
    [functions, *_] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    scope: dict[str, object] = {"__name__": "guide"}
    exec(compile(functions, str(GUIDE), "exec"), scope)  # noqa: S102
    registry = scope["registry"]
    assert isinstance(registry, Registry)
    server = FakeServer()
    server.approve(KEY.id)
    async with serve(server.answer) as url, asyncio.TaskGroup() as group:
        config = AgentConfig(url=url, colony="home", identity=KEY)
        agent = group.create_task(run(config, registry=registry))
        assert (await server.until_final(await server.add("double", 21))).output() == [42]
        counted = await server.until_final(await server.add("count", 3))
        assert counted.output() == ["done"]
        assert server.logs[counted.processid][0].startswith("counting")
        os.kill(os.getpid(), signal.SIGTERM)
        await agent
