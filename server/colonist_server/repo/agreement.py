"""What the nodes of one store must have in common beside their owner: keys that each other takes.

Where two do not take each other's, clients would get replies that they cannot believe, and requests
that half of the nodes refuse. While a key is being changed nodes have different ones, and take both
(docs/howto/rotate-keys.md). A record without ids is of an older node, and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from colonist_protocol.tokens import ServerKeys
from colonist_server.repo.nodes import Node


def names(keys: ServerKeys) -> tuple[str, ...]:
    """What a node tells the others of its keys: the id that it signs with, then the others."""
    return (keys.id, *sorted(keys.ids - {keys.id}))


def disagreement(keys: ServerKeys, others: Iterable[Node]) -> str:
    """Why this node and another do not take each other's key; "" when all do."""
    for node in others:
        theirs = node.record.servers
        if theirs and (theirs[0] not in keys.ids or keys.id not in theirs):
            return (
                f"this server has the key {keys.id}, and node {node.name!r} on the same store "
                f"{theirs[0]}, which do not take each other: give all nodes copies of one "
                "server.key, or change it as docs/howto/rotate-keys.md says"
            )
    return ""
