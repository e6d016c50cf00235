"""The bridge at its broker: what it announces, what it subscribes to, where each message goes.

Its client id and user name are one; its session persists, so requests that arrive while the bridge
is down wait at the broker. Each message is acknowledged before this function returns (see
`forward`). `{prefix}/+/req` also matches `enrol/req`, where devices without an account send what
enrols them. A topic that is no device's is counted and dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from colonist_bridge.counts import Counts
from colonist_bridge.forward import Forwarder
from colonist_bridge.hint import HintCode
from colonist_bridge.presence import Presence
from colonist_bridge.rate import Rate
from colonist_bridge.screen import ENROL_TOPIC, Refusal, screen, screen_enrolment
from colonist_bridge.state import GatewayMark
from colonist_client.mqtt_connection import Connection, Incoming, Retained
from colonist_protocol.topics import Topics

LEAVES: Final = ("req", "state", "lost")

_log = logging.getLogger(__name__)


class BridgePeer:
    """The bridge's side of its link to the broker."""

    def __init__(
        self,
        *,
        name: str,
        boot: str,
        topics: Topics,
        forwarder: Forwarder,
        presence: Presence,
        counts: Counts,
        birth: Callable[[int], bytes],
        max_bytes: int,
        enrolments: Rate,
    ) -> None:
        """`birth` gives the payload of `state` for a connection."""
        self._enrolments = enrolments
        self._name = name
        self._boot = boot
        self._topics = topics
        self._forwarder = forwarder
        self._presence = presence
        self._counts = counts
        self._birth = birth
        self._max_bytes = max_bytes

    def will(self, conn: int) -> Retained:
        """`lost` of this connection."""
        payload = msgspec.json.encode(GatewayMark(self._boot, conn))
        return Retained(topic=self._topics.gateway(self._name, "lost"), payload=payload)

    async def connected(self, connection: Connection, conn: int) -> None:
        """Subscribe, then announce: a device that reads the birth finds somebody listening."""
        await connection.subscribe([self._topics.every_device(leaf) for leaf in LEAVES])
        topic = self._topics.gateway(self._name, "state")
        await connection.publish(topic, self._birth(conn), retain=True)

    def disconnected(self) -> None:
        """Nothing to do: what is under way goes on and is published on the next connection."""

    def received(self, connection: Connection, message: Incoming) -> None:
        """Sort one message and acknowledge it, whatever it is."""
        try:
            self._sort(message)
        except Exception:  # noqa: BLE001 - one bad message must not end the link
            self._counts.add("failed")
            _log.exception("message on %s failed", message.topic[:120])
        finally:
            connection.acknowledge(message)

    def _sort(self, message: Incoming) -> None:
        address = self._topics.parse_device(message.topic)
        if address is None:
            if message.topic == self._topics.enrolment("req"):
                self._enrolment(message)
            else:
                self._counts.add("foreign_topic")
            return
        device, leaf = address
        if leaf == "req":
            self._request(device, message)
        elif leaf in ("state", "lost") and self._presence.note(device, leaf, message.payload):
            self._forwarder.withdraw(device)

    def _request(self, device: str, message: Incoming) -> None:
        if message.is_retained:
            self._counts.add("retained_request")
            return
        request = screen(device, message.payload, max_bytes=self._max_bytes)
        if isinstance(request, Refusal):
            self._forwarder.refuse(device, request)
            return
        mark = self._presence.mark(device)
        self._forwarder.accept(request, mark=mark, is_again=message.is_again)

    def _enrolment(self, message: Incoming) -> None:
        """What devices without an account may send: so few, whatever they send."""
        if message.is_retained:
            self._counts.add("retained_request")
            return
        if not self._enrolments.takes_one():
            self._forwarder.refuse(ENROL_TOPIC, Refusal(code=HintCode.BUSY, tag=""))
            return
        request = screen_enrolment(message.payload, max_bytes=self._max_bytes)
        if isinstance(request, Refusal):
            self._forwarder.refuse(ENROL_TOPIC, request)
        else:
            self._counts.add("enrolment")
            self._forwarder.accept(request, is_again=message.is_again)
