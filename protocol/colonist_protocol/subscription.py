"""Subscriptions: messages of COLONIES-RPC section 1.8, served on the WebSocket `GET /pubsub` only.

Each frame of the server is a reply whose payload is the process, of type `subscribeprocessmsg` for
both kinds, or an error.
"""

from __future__ import annotations

from typing import Final

from colonist_protocol.message import Int, Message

ANY_STATE: Final = -1
MAX_TIMEOUT_S: Final = 3600
MAX_FRAME_BYTES: Final = 65_536
"""What a client may send in one frame."""


class SubscribeProcess(Message, tag="subscribeprocessmsg"):
    """Follow one process: each time it enters `state` (-1: any), and its end, for `timeout` s."""

    processid: str = ""
    executortype: str = ""
    state: Int = 0
    timeout: Int = 0
    colonyname: str = ""


class SubscribeProcesses(Message, tag="subscribeprocessesmsg"):
    """Follow a colony's processes: each that enters `state` (-1: any), of a type ("": any)."""

    colonyname: str = ""
    executortype: str = ""
    state: Int = 0
    timeout: Int = 0


MESSAGES: Final = (SubscribeProcess, SubscribeProcesses)
ON_PUBSUB: Final = frozenset(kind.msgtype() for kind in MESSAGES)
"""What is not served by `POST /api`."""
