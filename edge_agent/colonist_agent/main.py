"""The agent as a program: the one place that puts its parts together and owns chance and signals.

python -m colonist_agent --config agent.toml

SIGTERM and SIGINT stop it gently, a second one at once. Exit status: 0 stopped, 2 configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import ssl
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from colonist_agent.agent import Agent, Limits
from colonist_agent.builtin import basic, checksum, sample, sysinfo
from colonist_agent.builtin.machine import Machine
from colonist_agent.command import Command
from colonist_agent.config import AgentConfig, load
from colonist_agent.counters import Counters
from colonist_agent.function import Registry
from colonist_agent.transport_mqtt import Birth, MqttTransport, running
from colonist_agent.watch import MAX_HELD
from colonist_client import logs, memory
from colonist_client.client import Client
from colonist_client.custody import Custody
from colonist_client.http import HttpTransport
from colonist_client.pin_file import pinned
from colonist_client.retry import Backoff
from colonist_client.sealer import Pin
from colonist_client.transport import Transport
from colonist_protocol.errors import ColonistError, InvalidValueError

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = logging.getLogger(__name__)


async def run(
    config: AgentConfig,
    *,
    registry: Registry | None = None,
    environment: Mapping[str, str] | None = None,
) -> Counters:
    """Run an agent until a signal stops it; what it counted. `registry` brings your own functions.

    `environment` is what listed variables of commands are taken from, and says where systemd's
    credentials are. Raises `InvalidValueError`.
    """
    functions = fill(registry or Registry(), config, environment or {})
    pin = pin_of(config)
    async with open_transport(config, environment or {}, pin) as transport:
        agent = Agent(
            client_of(transport, config, pin),
            config.colony,
            backoff=Backoff(uniform=random.Random().uniform),  # noqa: S311 - spreads load only
            name=config.name,
            registry=functions,
            limits=limits(config),
        )
        log.info("agent_started colony=%s executor=%s", config.colony, config.identity.id)
        with _stopped_by_signals(agent):
            await agent.run()
        log.info("agent_stopped %s", agent.counters)
        return agent.counters


def fill(registry: Registry, config: AgentConfig, environment: Mapping[str, str]) -> Registry:
    """Add the configured built-in functions and commands. Raises `InvalidValueError`."""
    machine = Machine()
    allowed = checksum.Allowed(
        roots=tuple(Path(root) for root in config.checksum_roots),
        hosts=tuple(host.lower() for host in config.checksum_hosts),
        max_bytes=config.checksum_max_bytes,
    )
    offered = [
        sysinfo.function(machine),
        sample.function(machine),
        checksum.function(allowed),
        *basic.functions(),
    ]
    for each in offered:
        if each.name in config.builtins and registry.find(each.name) is None:
            registry.add(each)
    for name, spec in config.commands.items():
        registry.add(Command(name, spec, environment=environment))
    return registry


def pin_of(config: AgentConfig) -> Pin | None:
    """The server whose replies are believed. Raises `InvalidValueError`."""
    file = config.server_id_file
    return pinned(config.server_id, Path(file) if file else None)


def client_of(transport: Transport, config: AgentConfig, pin: Pin | None) -> Client:
    """The client of an agent; what bridges say of the time is a hint to it."""
    client = Client(transport, config.identity, pin=pin)
    if client.sealer is not None and isinstance(transport, MqttTransport):
        transport.on_epoch = client.sealer.tokens.hint
    return client


def limits(config: AgentConfig) -> Limits:
    """The part of the configuration that the agent itself reads."""
    return Limits(
        slots=config.slots,
        poll_s=config.poll_s,
        check_s=config.check_s,
        stop_grace_s=config.stop_grace_s,
        queue_limit=config.queue_limit,
        cpu=config.cpu,
        memory=config.memory,
    )


@contextlib.asynccontextmanager
async def open_transport(
    config: AgentConfig, environment: Mapping[str, str], pin: Pin | None = None
) -> AsyncGenerator[Transport]:
    """The transport that the URL names, closed at the end. Raises `InvalidValueError`."""
    tls = _tls(config)
    if config.scheme in ("http", "https"):
        at_once = MAX_HELD + 4 * config.slots + 16  # what is held must not keep the rest waiting
        async with HttpTransport(config.url, tls=tls, max_connections=at_once) as transport:
            yield transport
        return
    made = MqttTransport(
        config.url,
        config.identity.id,
        password=_password(config, Custody(environment)),
        birth=Birth(colony=config.colony, name=config.name),
        prefix=config.prefix,
        tls=tls,
        pin=pin,
    )
    async with running(made) as transport:
        yield transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the configuration and run; the exit status."""
    parser = argparse.ArgumentParser(prog="colonist-agent", description=__doc__)
    parser.add_argument("--config", type=Path, help="a TOML file")
    parser.add_argument("--check", action="store_true", help="show the configuration and end")
    for item in fields(AgentConfig):
        if item.name not in ("identity", "commands"):
            parser.add_argument(f"--{item.name.replace('_', '-')}", dest=item.name)
    flags = vars(parser.parse_args(arguments))
    file, is_check = flags.pop("config"), flags.pop("check")
    memory.close(os.environ)
    try:
        config = load(file, os.environ, flags)
        fill(Registry(), config, os.environ)
        if is_check:
            sys.stdout.write(f"{config.describe()}\n")
            return 0
        logs.begin(config.log_level.upper(), "%(levelname)s %(name)s %(message)s")
        asyncio.run(run(config, environment=os.environ))
    except ColonistError as error:
        sys.stderr.write(f"colonist-agent: {error}\n")
        return 2
    return 0


@contextlib.contextmanager
def _stopped_by_signals(agent: Agent) -> Generator[None]:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    received: list[int] = []

    def receive() -> None:
        received.append(1)
        if len(received) == 1:
            agent.stop()
        elif task is not None:
            task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, receive)
    try:
        yield
    except asyncio.CancelledError:
        if len(received) < 2 or task is None:  # noqa: PLR2004 - somebody else cancelled us
            raise
        task.uncancel()
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def _tls(config: AgentConfig) -> ssl.SSLContext | None:
    if not config.ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidValueError(f"ca_file {config.ca_file}: {error}") from None


def _password(config: AgentConfig, custody: Custody) -> str:
    return custody.password(config.password_file, "password_file") if config.password_file else ""
