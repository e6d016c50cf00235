"""A small MQTT broker inside this process, for `colonist up` and for trying things out.

Loopback only, accounts only, everything in memory. It is amqtt, and this is the only module that
imports it. Not for production: it keeps nothing over a restart, and whoever reaches its port can
disconnect a client whose id he knows (amqtt ends the old connection before it checks the password).
"""

# amqtt ships no type information of its own.
# pyright: reportMissingTypeStubs=false
# mypy: disable-error-code="misc, no-any-return"

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session

from colonist_bridge.acl import bridge_access, bridge_account, device_access
from colonist_cli.embedded_rules import Accounts
from colonist_protocol.topics import Topics

HOST: Final = "127.0.0.1"

_NOISY: Final = ("amqtt", "transitions")


class EmbeddedBroker:
    """A running broker: its address, and the accounts that were made for it."""

    def __init__(self, port: int, topics: Topics, accounts: Accounts) -> None:
        self.port = port
        self.url = f"mqtt://{HOST}:{port}"
        self._topics = topics
        self._accounts = accounts

    def add_device(self, id: str) -> str:
        """Make an account for a device; its password, new for each start."""
        password = secrets.token_urlsafe(24)
        self._accounts.add(id, password, device_access(self._topics, id))
        return password

    def add_bridge(self, name: str) -> tuple[str, str]:
        """Make an account for a bridge; user name and password."""
        account, password = bridge_account(name), secrets.token_urlsafe(24)
        self._accounts.add(account, password, bridge_access(self._topics, name))
        return account, password


@contextlib.asynccontextmanager
async def embedded_broker(
    *, port: int = 0, topics: Topics | None = None
) -> AsyncGenerator[EmbeddedBroker]:
    """A broker for the length of the block; port 0 takes a free one."""
    chosen = port or _free_port()
    accounts = Accounts()
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    broker = _TidyBroker(_configuration(chosen, accounts))
    await broker.start()
    try:
        yield EmbeddedBroker(chosen, topics or Topics(), accounts)
    finally:
        await broker.shutdown()
        await broker.hang_up()


class Snapshots(dict[str, Any]):
    """A dict that may change while it is walked through: who began sees it as it was.

    amqtt hands messages out while others subscribe, and its loop ends when the dict changes.
    """

    def items(self) -> Any:
        """As they are now."""
        return list(super().items())

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))


class _TidyBroker(Broker):
    """amqtt leaves a socket open when its client is faster to close; this one closes them all."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        super().__init__(configuration)
        self._subscriptions = Snapshots()
        self._serving: set[asyncio.Task[Any]] = set()

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            await super().stream_connected(reader, writer, listener_name)
        finally:
            writer.close()

    async def hang_up(self) -> None:
        """End what is still being served after the shutdown."""
        serving = tuple(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class PasswordPlugin(BaseAuthPlugin):
    """Lets in who is an account."""

    @dataclass
    class Config(BaseAuthPlugin.Config):
        """amqtt hands a plugin its configuration: here, the live accounts."""

        accounts: Any = None

    async def authenticate(self, *, session: Session) -> bool:
        """Whether this session may begin."""
        accounts: Accounts = self._get_config_option("accounts")
        return accounts.may_connect(session.client_id, session.username, session.password)


class TopicPlugin(BaseTopicPlugin):
    """Lets an account read and write its topics."""

    @dataclass
    class Config(BaseTopicPlugin.Config):
        """As above."""

        accounts: Any = None

    async def topic_filtering(
        self,
        *,
        session: Session | None = None,
        topic: str | None = None,
        action: Action | None = None,
    ) -> bool:
        """Whether this session may do that with this topic."""
        accounts: Accounts = self._get_config_option("accounts")
        name = session.client_id if session else None  # it is the user name, and cannot change
        if action is Action.PUBLISH:
            return accounts.may_write(name, topic or "")
        return accounts.may_read(name, topic or "")


def _configuration(port: int, accounts: Accounts) -> dict[str, Any]:
    here = __name__
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
        "plugins": {
            f"{here}.{PasswordPlugin.__name__}": {"accounts": accounts},
            f"{here}.{TopicPlugin.__name__}": {"accounts": accounts},
        },
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
