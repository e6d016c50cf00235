"""`colonist up`: a whole colony in one process, and how to talk to it."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys

from colonist_cli.exits import CliError, Exit, innermost
from colonist_cli.house import HTTP_AGENT, MQTT_AGENT, House, Plan, house
from colonist_cli.loop import run_until_signal
from colonist_cli.place import Place
from colonist_server.store.interface import StoreError


def run_blocking(place: Place, plan: Plan) -> None:
    """Run until a signal. Raises `CliError` when it cannot start."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        run_until_signal(lambda stop: _run(place, plan, stop))
    except (StoreError, ExceptionGroup) as error:
        told = innermost(error)
        if isinstance(told, StoreError):
            raise CliError(Exit.NOT_STARTED, str(told)) from None
        raise


async def _run(place: Place, plan: Plan, stop: asyncio.Event) -> None:
    async with house(place, plan) as running:
        print(welcome(place, running), flush=True)
        await stop.wait()
        print("\nstopping ...", flush=True)


def welcome(place: Place, running: House) -> str:
    """What is there, and what to type next."""
    founding = running.founding
    history = "new" if founding.is_new else f"found again, {founding.ended_before} processes done"
    functions = " ".join(running.agents[0].registry.names())
    program = "colonist" if shutil.which("colonist") else sys.argv[0]
    return f"""\
Colonist is up. Ctrl-C stops it.

  server   {running.server.url}    store {place.store}
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
