"""`colonist up`: a whole colony in one process, and how to talk to it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import aiohttp

from colonist_cli.exits import CliError, Exit, innermost
from colonist_cli.house import HTTP_AGENT, MQTT_AGENT, House, Plan, house
from colonist_cli.loop import run_until_signal
from colonist_cli.place import Place
from colonist_client import logs
from colonist_server.main import Server
from colonist_server.store.interface import StoreError

LEADER_S: Final = 6.0
LOOK_S: Final = 0.1
LEADS: Final = "\ncolonist_is_leader 1\n"


def run_blocking(place: Place, plan: Plan) -> None:
    """Run until a signal. Raises `CliError` when it cannot start."""
    logs.begin(logging.ERROR, "%(levelname)s %(message)s")
    try:
        run_until_signal(lambda stop: _run(place, plan, stop))
    except (StoreError, ExceptionGroup) as error:
        told = innermost(error)
        if isinstance(told, StoreError):
            raise CliError(Exit.NOT_STARTED, str(told)) from None
        raise


async def _run(place: Place, plan: Plan, stop: asyncio.Event) -> None:
    async with house(place, plan) as running:
        print(welcome(place, running, await leader(running.servers)), flush=True)
        await stop.wait()
        print("\nstopping ...", flush=True)


async def leader(servers: Sequence[Server]) -> str:
    """The URL of the node that runs the loops of all, once there is one; "" of one node alone."""
    if len(servers) == 1:
        return ""
    with suppress(TimeoutError):
        async with asyncio.timeout(LEADER_S), aiohttp.ClientSession() as session:
            while True:
                for server in servers:
                    async with session.get(f"{server.url}/metrics") as reply:
                        if LEADS in await reply.text():
                            return server.url
                await asyncio.sleep(LOOK_S)
    return ""


def _servers(place: Place, running: House, leading: str) -> str:
    if len(running.servers) == 1:
        return f"  server   {running.server.url}    store {place.store}"
    lines = [
        f"  server   {server.url}    {server.config.node}"
        f"{', which leads' if server.url == leading else ''}"
        for server in running.servers
    ]
    store = running.server.config.store.partition("?")[0]
    return "\n".join([*lines, f"  store    {store}    data {place.etcd}"])


def welcome(place: Place, running: House, leading: str = "") -> str:
    """What is there, and what to type next."""
    founding = running.founding
    history = "new" if founding.is_new else f"found again, {founding.ended_before} processes done"
    functions = " ".join(running.agents[0].registry.names())
    program = "colonist" if shutil.which("colonist") else sys.argv[0]
    return f"""\
Colonist is up. Ctrl-C stops it.

{_servers(place, running, leading)}
  broker   {running.broker.url}    for this machine only
  colony   {founding.name}    {history}
  agents   {HTTP_AGENT} over HTTP, {MQTT_AGENT} over MQTT through the bridge
           can run: {functions}
           allow-list: {place.agent_file}

In another terminal:

  export COLONIST_HOME={place.root}
  {program} call sysinfo
  {program} submit sample cpu duration_s=5 --follow
  {program} process list
  eval "$({program} env)"    # for pycolonies and the other Colonies SDKs"""
