"""Client and agent against the real server, over HTTP, in one process."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_agent.agent import Agent, Limits
from colonist_agent.command import Command, CommandSpec
from colonist_agent.config import AgentConfig
from colonist_agent.context import Context
from colonist_agent.function import Registry
from colonist_agent.main import fill, run
from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.retry import Backoff
from colonist_protocol import codec
from colonist_protocol.colony import Colony
from colonist_protocol.executor import Executor
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.process import CloseSuccessful, State
from colonist_protocol.user import User
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.config import ServerConfig
from colonist_server.main import serve

OWNER, COLONY, DEVICE, PERSON, SECOND = (Identity(bytes(31) + bytes([n])) for n in range(1, 6))


class House:
    """A server with one colony, one approved executor and one user."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._transport = HttpTransport(url)
        self.owner, self.colony, self.device, self.person = (
            Client(self._transport, key) for key in (OWNER, COLONY, DEVICE, PERSON)
        )

    async def furnish(self) -> None:
        """Add colony, executor and user."""
        await self.owner.add_colony(Colony(colonyid=COLONY.id, name="home"))
        await self.hire(DEVICE, "pump")
        await self.hire(SECOND, "valve")
        await self.colony.add_user(User(colonyname="home", userid=PERSON.id, name="ann"))

    async def hire(self, identity: Identity, name: str) -> None:
        """Add and approve an executor."""
        new = Executor(
            executorid=identity.id, executortype="device", executorname=name, colonyname="home"
        )
        await self.colony.add_executor(new)
        await self.colony.approve_executor("home", name)

    async def submit(self, function: str, *args: Any, **fields: Any) -> str:
        """Submit as the user; the id."""
        return (await self.person.submit(call(function, *args, **fields))).processid

    async def until(self, process_id: str, state: int) -> None:
        """Wait until a process is in a state."""
        async with asyncio.timeout(20):
            while (found := await self.person.get(process_id)).state != state:
                await self.person.get(process_id, while_state=found.state, timeout_s=20)

    def config(self, **fields: Any) -> AgentConfig:
        """An agent with the executor's key."""
        return AgentConfig(url=self.url, colony="home", identity=DEVICE, **fields)

    async def close(self) -> None:
        """Close the connection."""
        await self._transport.close()


def call(function: str, *args: Any, after: tuple[str, ...] = (), **fields: Any) -> FunctionSpec:
    """A call for executors of type "device"; in a workflow `after` the nodes of these names."""
    return FunctionSpec(
        funcname=function,
        args=msgspec.Raw(codec.encode(list(args))),
        conditions=Conditions(colonyname="home", executortype="device", dependencies=list(after)),
        **fields,
    )


@contextlib.asynccontextmanager
async def at_work(client: Client, registry: Registry, **limits: Any) -> AsyncGenerator[Agent]:
    """An agent that is stopped at the end of the block, and ends quickly."""
    backoff = Backoff(uniform=random.Random(1).uniform)
    given: dict[str, Any] = {"check_s": 1e9, "stop_grace_s": 0.0, **limits}
    agent = Agent(client, "home", backoff=backoff, registry=registry, limits=Limits(**given))
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.run())
        try:
            yield agent
        finally:
            agent.stop()


@contextlib.asynccontextmanager
async def _house(folder: Path) -> AsyncGenerator[House]:
    config = ServerConfig(
        port=0, store=f"sqlite:{folder}/store.db", owner=OWNER.id, keys=folder / "keys"
    )
    async with serve(config) as server:
        house = House(server.url)
        await house.furnish()
        try:
            yield house
        finally:
            await house.close()


async def test_work_goes_out_and_comes_back(tmp_path: Path) -> None:
    registry = Registry()

    @registry.function("talk")
    def talk(context: Context, times: int) -> str:
        for number in range(times):
            context.log(f"line {number}")
        context.attribute("mood", "good")
        return "talked"

    async with _house(tmp_path) as house, asyncio.TaskGroup() as group:
        agent = group.create_task(run(house.config(slots=4), registry=registry))
        ids = [await house.submit("echo", number) for number in range(20)]
        talk_id = await house.submit("talk", 3, maxexectime=60)
        done = [await house.person.wait(each, timeout_s=30) for each in ids]
        assert [each.output() for each in done] == [[number] for number in range(20)]
        talked = await house.person.wait(talk_id, timeout_s=30)
        assert talked.output() == ["talked"]
        assert [(each.key, each.value) for each in talked.attributes] == [("mood", "good")]
        lines = await house.person.logs("home", process_id=talk_id)
        assert "\n".join(each.message for each in lines) == "line 0\nline 1\nline 2"
        names = {each.funcname for each in await house.person.functions("home", executor="pump")}
        assert {"talk", "echo", "sysinfo"} <= names
        os.kill(os.getpid(), signal.SIGTERM)
        counters = await agent
    assert counters.succeeded == counters.delivered == 21


async def test_cancelled_process_stops_its_function(tmp_path: Path) -> None:
    async with _house(tmp_path) as house, asyncio.TaskGroup() as group:
        agent = group.create_task(run(house.config(check_s=1e9)))
        process_id = await house.submit("sleep", 1000)
        while (await house.person.get(process_id)).state != State.RUNNING:
            pass
        await house.person.cancel(process_id)
        # There is one slot: the next process runs only when the first has let go.
        echo = await house.submit("echo", 1)
        assert (await house.person.wait(echo, timeout_s=30)).output() == [1]
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await agent).abandoned == 1


async def test_cancel_ends_a_running_program_within_a_second(tmp_path: Path) -> None:
    registry, mark = Registry(), tmp_path / "running"
    script = f"import pathlib, time; pathlib.Path({str(mark)!r}).touch(); time.sleep(1000)"
    spec = CommandSpec(argv=[sys.executable, "-c", script], timeout_s=1000)
    registry.add(Command("program", spec, environment={}))
    async with _house(tmp_path) as house, at_work(house.device, registry) as agent:
        process_id = await house.submit("program")
        async with asyncio.timeout(20):
            while not mark.exists():
                await asyncio.sleep(0.01)  # another program: there is nothing to wait on
        async with asyncio.timeout(1):
            await house.person.cancel(process_id)
            while not agent.counters.abandoned:
                await house.person.get(process_id)
        assert (await house.person.get(process_id)).state == State.CANCELLED


async def test_node_adds_a_node_that_reads_its_output_before_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    registry = Registry()

    @registry.function("measure")
    async def measure(context: Context) -> int:
        await context.add_child(call("convert", nodename="convert"), insert=True)
        return 20

    @registry.function("convert")
    def convert(context: Context) -> str:
        [parent] = context.blocking.parents()
        assert parent.output() == context.inputs
        return f"{parent.spec.nodename}: {parent.output()[0] * 1.8 + 32:g} F"

    @registry.function("report")
    def report(context: Context) -> str:
        return f"<{context.inputs[0]}>"

    nodes = [call("measure", nodename="m"), call("report", nodename="r", after=("m",))]
    async with _house(tmp_path) as house, at_work(house.device, registry):
        graph = await house.person.submit_workflow(
            WorkflowSpec(colonyname="home", functionspecs=nodes)
        )
        done = await house.person.wait(graph.processids[1], timeout_s=30)
        assert done.output() == ["<m: 68 F>"]
        ended = await house.person.workflow(graph.processgraphid)
        assert (len(ended.processids), ended.state) == (3, State.SUCCESS)


async def test_agent_that_starts_again_follows_what_it_gets_again(tmp_path: Path) -> None:
    async with _house(tmp_path) as house:
        process_id = await house.submit("sleep", 1000, maxexectime=1, maxretries=9)
        registry = fill(Registry(), house.config(), {})
        async with asyncio.TaskGroup() as group, HttpTransport(house.url) as transport:
            client = Client(transport, DEVICE)
            agent = Agent(
                client,
                "home",
                backoff=Backoff(uniform=random.Random(1).uniform),
                registry=registry,
            )
            task = group.create_task(agent.run())
            await house.until(process_id, State.RUNNING)
            task.cancel()
        async with at_work(house.device, registry) as second:
            await house.until(process_id, State.WAITING)  # its lease is over
            await house.until(process_id, State.RUNNING)
            async with asyncio.timeout(1):
                await house.person.cancel(process_id)
                while not second.counters.abandoned:
                    await house.person.get(process_id)


@pytest.mark.parametrize("lease_s", [0, 3600])
async def test_agent_that_stops_gives_its_work_back(tmp_path: Path, lease_s: int) -> None:
    async with _house(tmp_path) as house, asyncio.TaskGroup() as group:
        agent = group.create_task(run(house.config(stop_grace_s=0.05)))
        process_id = await house.submit("sleep", 1000, maxexectime=lease_s)
        while (await house.person.get(process_id)).state != State.RUNNING:
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await agent).returned == 1
        back = await house.person.get(process_id)
        assert (back.state, back.retries, back.isassigned) == (State.WAITING, 0, False)


async def test_function_over_its_lease_is_run_again_by_the_server(tmp_path: Path) -> None:
    registry, runs = Registry(), 0

    @registry.function("slow_at_first")
    async def slow_at_first() -> int:
        nonlocal runs
        runs += 1
        await asyncio.sleep(1000 if runs == 1 else 0)
        return runs

    async with _house(tmp_path) as house, asyncio.TaskGroup() as group:
        agent = group.create_task(run(house.config(), registry=registry))
        process_id = await house.submit("slow_at_first", maxexectime=1, maxretries=3)
        done = await house.person.wait(process_id, timeout_s=30)
        assert (done.output(), done.retries) == ([2], 1)
        os.kill(os.getpid(), signal.SIGTERM)
        await agent


async def test_same_close_twice_is_answered_twice(tmp_path: Path) -> None:
    async with _house(tmp_path) as house:
        process_id = await house.submit("f")
        assert await house.device.assign("home", timeout_s=10) is not None
        body = house.device.pack(CloseSuccessful(processid=process_id, out=msgspec.Raw(b"[1]")))
        assert await house.device.deliver(body) == await house.device.deliver(body) == b"{}"
        with pytest.raises(ServerError) as raised:
            await house.device.close(process_id, [2])
        assert raised.value.is_definite
        assert (await house.person.get(process_id)).output() == [1]


async def test_assign_without_work_and_with_a_key_that_is_not_known(tmp_path: Path) -> None:
    async with _house(tmp_path) as house:
        assert await house.device.assign("home", timeout_s=-1) is None
        stranger = Client(HttpTransport(house.url), Identity(bytes(31) + b"\x63"))
        async with stranger:
            with pytest.raises(ServerError, match="Access denied") as raised:
                await stranger.assign("home", timeout_s=-1)
        assert raised.value.status == 403


async def test_reads_of_an_empty_colony(tmp_path: Path) -> None:
    async with _house(tmp_path) as house:
        assert await house.person.processes("home") == []
        assert await house.person.history("home", seconds=60) == []
        assert [each.name for each in await house.owner.colonies()] == ["home"]
        assert [each.name for each in await house.person.users("home")] == ["ann"]
        assert {each.executorname for each in await house.person.executors("home")} == {
            "pump",
            "valve",
        }
        assert (await house.person.executor_by_id("home", DEVICE.id)).executorname == "pump"
        assert (await house.person.colony_statistics("home")).executors == 2
        assert (await house.owner.statistics()).colonies == 1
        assert (await house.owner.cluster()).nodes
        assert (await house.person.server_info()).backends
        await house.colony.pause("home")
        assert await house.person.is_paused("home")
        await house.colony.resume("home")
        assert not await house.person.is_paused("home")
