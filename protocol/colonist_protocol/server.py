"""The server itself: version, cluster, statistics (COLONIES-RPC sections 2.1 and 3.13)."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.message import Int, Message


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts; processes include workflow members."""

    colonies: Int = 0
    executors: Int = 0
    activeexecutors: Int = 0
    unregisteredexecutors: Int = 0
    waitingprocesses: Int = 0
    runningprocesses: Int = 0
    successfulprocesses: Int = 0
    failedprocesses: Int = 0
    cancelledprocesses: Int = 0
    waitingworkflows: Int = 0
    runningworkflows: Int = 0
    successfulworkflows: Int = 0
    failedworkflows: Int = 0
    cancelledworkflows: Int = 0


class VersionReply(msgspec.Struct, frozen=True, kw_only=True):
    """What answers `versionmsg`."""

    buildversion: str
    buildtime: str
    msgtype: str = "versionmsg"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A way in."""

    type: str = "http"
    port: Int
    host: str


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What answers `getserverinfomsg`."""

    buildversion: str
    buildtime: str
    backends: list[Backend]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A server node. There is no relay between ours: that port is 0."""

    name: str
    host: str
    port: Int
    peerport: Int = 0
    relayport: Int = 0
    apiport: Int


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """What answers `getclustermsg`."""

    nodes: list[Node]
    leader: Node


class Version(Message, tag="versionmsg"):
    """Ask for the server's version; needs no signature."""


class GetServerInfo(Message, tag="getserverinfomsg"):
    """Ask for the ways in; needs no signature, its payload is not read."""


class GetStatistics(Message, tag="getstatisticsmsg"):
    """Count what is in all colonies; server owner only."""


class GetCluster(Message, tag="getclustermsg"):
    """List the server's nodes; server owner only."""


class ChangeServerId(Message, tag="changeserveridmsg"):
    """Give the server owner a new id; signed with the old key, which is refused from then on."""

    serverid: str = ""


MESSAGES: Final = (Version, GetServerInfo, GetStatistics, GetCluster, ChangeServerId)
