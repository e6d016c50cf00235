"""MQTT topics: the device's id and nothing else names anybody, so nothing needs escaping."""

from __future__ import annotations

import re
from typing import Final

from colonist_protocol.errors import TopicError
from colonist_protocol.identity import is_id

DEFAULT_PREFIX: Final = "colonist/v1"

_BRIDGE: Final = re.compile(r"[a-z0-9-]{1,32}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{1,32}(/[A-Za-z0-9._-]{1,32}){0,3}")


class Topics:
    """The topics under one prefix. Raises `TopicError` for what would be no topic."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        if _PREFIX.fullmatch(prefix) is None:
            raise TopicError(f"{prefix[:64]!a} is no topic prefix")
        self.prefix = prefix

    def device(self, device: str, leaf: str) -> str:
        """`{prefix}/{id}/{leaf}`; `leaf` is `req`, `rep`, `state` or `lost`."""
        if not is_id(device):
            raise TopicError("a device's topic needs the id of its key")
        return f"{self.prefix}/{device}/{leaf}"

    def every_device(self, leaf: str) -> str:
        """The subscription to one leaf of every device."""
        return f"{self.prefix}/+/{leaf}"

    def enrolment(self, leaf: str) -> str:
        """`{prefix}/enrol/{leaf}`, which devices without an account share; `req` or `rep`."""
        return f"{self.prefix}/enrol/{leaf}"

    def gateway(self, bridge: str, leaf: str) -> str:
        """`{prefix}/gw/{bridge}/{leaf}`; `leaf` is `state` or `lost`."""
        if _BRIDGE.fullmatch(bridge) is None:
            raise TopicError(f"bridge name {bridge[:64]!a} is not [a-z0-9-]{{1,32}}")
        return f"{self.prefix}/gw/{bridge}/{leaf}"

    def every_gateway(self, leaf: str) -> str:
        """The subscription to one leaf of every bridge."""
        return f"{self.prefix}/gw/+/{leaf}"

    def parse_device(self, topic: str) -> tuple[str, str] | None:
        """Id and leaf of a device's topic; None for any other topic."""
        head, _, leaf = topic.rpartition("/")
        prefix, _, device = head.rpartition("/")
        return (device, leaf) if leaf and prefix == self.prefix and is_id(device) else None
