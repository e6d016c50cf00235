"""What the demo runs on, all of it in one temporary folder.

A server and two agents are processes of their own, so that they can be killed like real ones; the
broker and its bridge are in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from colonist_bridge.main import Bridge
from colonist_cli.colony import USER, found, key_of
from colonist_cli.demo.jobs import Scene
from colonist_cli.demo.program import Program
from colonist_cli.embedded_broker import EmbeddedBroker, embedded_broker
from colonist_cli.exits import CliError, Exit
from colonist_cli.house import bridge_for
from colonist_cli.place import Place
from colonist_cli.ports import HOST, free_port
from colonist_client import keyfile, memory
from colonist_client.client import Client
from colonist_client.http import HttpTransport
from colonist_client.sealer import Pin
from colonist_protocol.errors import ColonistError
from colonist_server.keyring import SERVER_KEY

SCENE: Final = Scene(colony="demo", type="machine", over_http="http-agent", over_mqtt="mqtt-agent")
WAYS: Final = {SCENE.over_http: "http", SCENE.over_mqtt: "mqtt"}
SLOTS: Final = 4
READY_S: Final = 15.0
LOOK_S: Final = 0.02

_SCRIPT: Final = """\
# Like a sensor that hangs the first time it is read.
if mkdir "$0.read" 2>/dev/null; then sleep 60; fi
echo "load $(cut -d' ' -f1-3 /proc/loadavg)"
"""
_AGENT: Final = """\
checksum_roots = {roots}
stop_grace_s = 1
slots = {slots}
[commands.kernel]
argv = ["/bin/uname", "-srm"]
[commands.disk]
argv = ["/bin/df", "-h", "{{path}}"]
[commands.disk.parameters.path]
pattern = "/[A-Za-z0-9/_.-]*"
[commands.hangs_once]
argv = ["/bin/sh", {script}]
renew = false
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything that runs."""

    place: Place
    url: str
    broker: EmbeddedBroker
    bridge: Bridge
    server: Program
    agents: Mapping[str, Program]

    def journals(self) -> dict[str, Path]:
        """Where each agent notes its runs."""
        return {name: journal(self.place, name) for name in self.agents}

    async def start_server(self) -> None:
        """Start it again and wait until it answers."""
        await self.server.start()
        await _answers(self.url, self.server)


def journal(place: Place, agent: str) -> Path:
    """Where an agent notes its runs."""
    return place.root / f"{agent}.journal"


def client_of(place: Place, url: str) -> Client:
    """A client with the user's key."""
    return Client(HttpTransport(url), key_of(place, USER), pin=Pin(server_id_of(place)))


def server_id_of(place: Place) -> str:
    """The id of the server that made its key in the state folder."""
    return keyfile.id_of(place.keys / SERVER_KEY, place.custody)


@asynccontextmanager
async def stage(
    root: Path, environment: Mapping[str, str], files: Sequence[Path]
) -> AsyncGenerator[Stage]:
    """Start everything, and stop everything at the end of the block. Raises `CliError`."""
    place = Place(root)
    place.make()
    _write_allow_list(place, files)
    port = free_port()
    url = f"http://{HOST}:{port}"
    # No variable of ours: it would change what the programs do.
    clean = {"PATH": os.defpath, **memory.for_ours(environment)}

    def program(name: str, *arguments: str) -> Program:
        log = place.root / f"{name}.log"
        return Program(name, arguments, log=log, environment=clean)

    async with AsyncExitStack() as stack:
        server = program(
            "server", "server", f"--port={port}", f"--store=sqlite:{place.store}",
            f"--keys={place.keys}",
        )  # fmt: skip
        stack.push_async_callback(server.stop)
        await server.start()
        await _answers(url, server)
        server_id = server_id_of(place)
        await found(
            url,
            place,
            colony=SCENE.colony,
            executors=list(WAYS),
            executor_type=SCENE.type,
            server_id=server_id,
        )
        broker = await stack.enter_async_context(embedded_broker())
        bridge = await stack.enter_async_context(bridge_for(url, broker, server_id))
        secret = _password(place, broker)
        agents = {
            SCENE.over_http: program(
                SCENE.over_http, *_agent(place, SCENE.over_http), f"--server={url}"
            ),
            SCENE.over_mqtt: program(
                SCENE.over_mqtt, *_agent(place, SCENE.over_mqtt), f"--server={broker.url}",
                "--set", f"password_file={secret}",
            ),
        }  # fmt: skip
        stack.push_async_callback(_stop_all, agents)
        for agent in agents.values():
            await agent.start()
        await _announced(client_of(place, url), agents)
        yield Stage(
            place=place, url=url, broker=broker, bridge=bridge, server=server, agents=agents
        )


def _agent(place: Place, name: str) -> list[str]:
    return [
        "agent", "run", f"--config={place.agent_file}", f"--colony={SCENE.colony}",
        f"--name={name}", f"--key={place.key(name)}", f"--journal={journal(place, name)}",
        "--set", f"server_id={server_id_of(place)}",
    ]  # fmt: skip


def _password(place: Place, broker: EmbeddedBroker) -> Path:
    secret = place.root / "mqtt.password"
    secret.touch(mode=0o600)
    secret.write_text(broker.add_device(key_of(place, SCENE.over_mqtt).id))
    return secret


def _write_allow_list(place: Place, files: Sequence[Path]) -> None:
    script = place.root / "hangs_once.sh"
    script.write_text(_SCRIPT)
    roots = sorted({str(file.resolve().parent) for file in files})
    text = _AGENT.format(roots=json.dumps(roots), script=json.dumps(str(script)), slots=SLOTS)
    place.agent_file.write_text(text)


async def _stop_all(programs: Mapping[str, Program]) -> None:
    async with asyncio.TaskGroup() as group:
        for program in programs.values():
            group.create_task(program.stop())


async def _answers(url: str, server: Program) -> None:
    async def look(client: Client) -> bool:
        try:
            await client.version()
        except ColonistError:
            return False
        return True

    await _until(look, Client(HttpTransport(url), None), [server])


async def _announced(client: Client, agents: Mapping[str, Program]) -> None:
    async def look(client: Client) -> bool:
        there = {each.executorname for each in await client.functions(SCENE.colony)}
        return there >= agents.keys()

    await _until(look, client, list(agents.values()))


Look = Callable[[Client], Coroutine[Any, Any, bool]]


async def _until(look: Look, client: Client, programs: Sequence[Program]) -> None:
    try:
        async with asyncio.timeout(READY_S), client:
            while not await look(client):
                for program in programs:
                    program.check()
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        names = ", ".join(program.name for program in programs)
        raise CliError(Exit.FAILED, f"not ready within {READY_S:g} s: {names}") from None
