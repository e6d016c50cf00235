"""Ports for servers of tests that are killed and started again."""

from __future__ import annotations

import contextlib
import random
import socket

HOST = "127.0.0.1"
# Below the range that the kernel takes for outgoing connections: while a server is down, nobody
# must be given its port.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on at this moment and no outgoing connection is given."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports")
