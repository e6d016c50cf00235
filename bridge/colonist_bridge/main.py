"""The bridge as a program: the one place that puts its parts together and owns clock and chance.

python -m colonist_bridge --config bridge.toml
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from colonist_bridge.broker import BridgePeer
from colonist_bridge.config import BridgeConfig, load, split_broker_url
from colonist_bridge.counts import Counts
from colonist_bridge.epochs import Epochs
from colonist_bridge.forward import Forwarder, Limits
from colonist_bridge.members import Members
from colonist_bridge.presence import Presence
from colonist_bridge.rate import Rate
from colonist_bridge.reply import Reply
from colonist_bridge.screen import ENROL_TOPIC
from colonist_bridge.state import GatewayState, StatePublisher
from colonist_bridge.uplink import ServerUplink
from colonist_client import logs, memory
from colonist_client.http import HttpTransport
from colonist_client.mqtt_connection import BrokerAddress, LinkError
from colonist_client.mqtt_link import Link
from colonist_client.retry import Backoff
from colonist_client.sealer import Pin
from colonist_client.transport import Transport
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.topics import Topics

COUNTS_S: Final = 60.0
ENROLMENTS_PER_S: Final = 1.0
ENROLMENTS: Final = 5.0
"""So many at once of devices without an account, and one each second."""
_SPARE_CONNECTIONS: Final = 16

_log = logging.getLogger(__name__)


class Bridge:
    """All parts of one bridge, wired. `run` ends when cancelled."""

    def __init__(self, config: BridgeConfig, transport: Transport) -> None:
        """`transport` leads to the server; the caller closes it."""
        chance = random.Random()  # noqa: S311 - spreads load, guards nothing
        self.counts = Counts()
        self._config = config
        self._topics = Topics(config.prefix)
        self._boot = secrets.token_hex(8)
        self._backoff = Backoff(
            uniform=chance.uniform,
            base_s=config.reconnect_base_s,
            cap_s=config.reconnect_cap_s,
        )
        pin = Pin(config.server_id, _moved) if config.server_id else None
        self.epochs = Epochs(pin)
        self.state = StatePublisher(self._read_state, self._publish_state)
        self.uplink = ServerUplink(
            transport,
            reply_bytes=config.max_reply_bytes,
            backoff=self._backoff,
            wall=time.time,
            on_change=self.state.turned,
            on_reply=self._heard,
        )
        self.forwarder = Forwarder(
            self.uplink,
            self._reply,
            limits=_limits(config),
            counts=self.counts,
            uniform=chance.uniform,
            clock=time.monotonic,
            on_change=self.state.counted,
            is_outside=self._is_outside,
        )
        self.members = self._members(transport, pin)
        self.link = Link(_address(config), self._peer(), self._backoff)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.forwarder.run())
            await asyncio.sleep(0)  # the forwarder is ready before the first message
            group.create_task(self.uplink.run())
            group.create_task(self.link.run())
            group.create_task(self.state.run())
            group.create_task(self._log_counts())
            if self.members is not None:
                group.create_task(self.members.run())

    def _members(self, transport: Transport, pin: Pin | None) -> Members | None:
        config = self._config
        if config.identity is None or pin is None:
            return None
        return Members(
            transport,
            config.identity,
            pin,
            colony=config.colony,
            withdraw=self.forwarder.withdraw,
            backoff=self._backoff,
            counts=self.counts,
        )

    def _heard(self, reply: Reply) -> None:
        if self.members is not None:
            self.members.heard(reply)  # under the pin as it was; the other may move it
        self.epochs.heard(reply)

    def _is_outside(self, device: str) -> bool:
        return self.members is not None and self.members.is_outside(device)

    def _peer(self) -> BridgePeer:
        return BridgePeer(
            name=self._config.name,
            boot=self._boot,
            topics=self._topics,
            forwarder=self.forwarder,
            presence=Presence(self._config.max_devices),
            counts=self.counts,
            birth=lambda _conn: self.state.current(),
            max_bytes=self._config.max_request_bytes,
            enrolments=Rate(per_s=ENROLMENTS_PER_S, burst=ENROLMENTS, clock=time.monotonic),
        )

    def _read_state(self) -> GatewayState:
        return GatewayState(
            boot=self._boot,
            conn=self.link.connects,
            uplink="up" if self.uplink.is_up else "down",
            since=int(self.uplink.since),
            epoch=self.epochs.token,
            backlog_bytes=0,
            oldest_age_s=0,
            open=self.forwarder.open_requests,
            held=self.forwarder.held_polls,
            version=_version(),
        )

    async def _reply(self, device: str, message: bytes) -> None:
        is_nobodys = device == ENROL_TOPIC
        topics = self._topics
        topic = topics.enrolment("rep") if is_nobodys else topics.device(device, "rep")
        await self.link.publish(topic, message)

    async def _publish_state(self) -> None:
        topic = self._topics.gateway(self._config.name, "state")
        connection = await self.link.connection()
        # On this connection or not at all: the birth on the next one says what is true then.
        with contextlib.suppress(LinkError):
            await connection.publish(topic, self.state.current(), retain=True)

    async def _log_counts(self) -> None:
        shown: dict[str, int] = {}
        while True:
            await asyncio.sleep(COUNTS_S)
            numbers = self.counts.all()
            if numbers != shown:
                _log.info("counts %s", numbers)
                shown = numbers


async def run(config: BridgeConfig) -> None:
    """Run a bridge until cancelled."""
    async with HttpTransport(
        config.server_url,
        tls=_tls(config.server_ca_file) if config.server_ca_file else None,
        max_connections=config.max_requests + _SPARE_CONNECTIONS,
        max_reply_bytes=2 * config.max_reply_bytes,  # so that one a little over is told apart
    ) as transport:
        _log.info("bridge starts: %s", config)
        await Bridge(config, transport).run()


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the configuration and run until a signal; the exit code."""
    parser = argparse.ArgumentParser(prog="colonist_bridge", description=__doc__)
    parser.add_argument("--config", type=Path)
    for item in fields(BridgeConfig):
        if item.name not in (
            "password",
            "identity",
        ):  # a flag can be read by every user of the machine
            parser.add_argument(f"--{item.name.replace('_', '-')}")
    flags = vars(parser.parse_args(arguments))
    logs.begin(logging.INFO, "%(asctime)s %(levelname)s %(name)s %(message)s")
    memory.close(os.environ)
    try:
        config = load(flags.pop("config"), os.environ, flags)
    except InvalidValueError as error:
        print(f"colonist bridge: {error}", file=sys.stderr)  # noqa: T201
        return 2
    asyncio.run(_until_signal(config))
    return 0


async def _until_signal(config: BridgeConfig) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(config))
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)


def _moved(server_id: str) -> None:
    _log.warning("the server has a new key: write server_id = %r into the configuration", server_id)


def _limits(config: BridgeConfig) -> Limits:
    return Limits(
        requests=config.max_requests,
        request_bytes=config.max_open_bytes,
        requests_per_device=config.max_requests_per_device,
        held_per_device=config.max_held_per_device,
        outside=config.max_outside,
        reply_s=config.reply_s,
        hold_s=config.hold_s,
        retry_after_s=config.retry_after_s,
    )


def _address(config: BridgeConfig) -> BrokerAddress:
    has_tls, host, port = split_broker_url(config.broker_url)
    return BrokerAddress(
        host=host,
        port=port,
        client_id=config.account,
        username=config.account,
        password=config.password,
        tls=_tls(config.broker_ca_file) if has_tls else None,
    )


def _tls(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file or None)


def _version() -> str:
    try:
        return version("colonist")
    except PackageNotFoundError:
        return "unknown"
