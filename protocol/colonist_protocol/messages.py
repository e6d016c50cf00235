"""Every type of message there is, by name: those we type, and those we only know of."""

from __future__ import annotations

from typing import Final

from colonist_protocol import (
    attribute,
    audit,
    claims,
    colony,
    cron,
    executor,
    function,
    generator,
    log,
    process,
    server,
    subscription,
    user,
    workflow,
)
from colonist_protocol.message import Message, registry

TYPED: Final[dict[str, type[Message]]] = registry(
    server.MESSAGES,
    colony.MESSAGES,
    user.MESSAGES,
    executor.MESSAGES,
    function.MESSAGES,
    process.MESSAGES,
    workflow.MESSAGES,
    attribute.MESSAGES,
    log.MESSAGES,
    generator.MESSAGES,
    cron.MESSAGES,
    subscription.MESSAGES,
    audit.MESSAGES,
    claims.MESSAGES,
)

UNSIGNED: Final = frozenset({server.Version.msgtype(), server.GetServerInfo.msgtype()})

# COLONIES-RPC section 2.0.1: known to the protocol, answered with a clear "not supported".
UNSUPPORTED: Final = frozenset(
    [
        "reportallocationmsg",
        "updateexecutormsg",
        "addfilemsg",
        "removefilemsg",
        "getfilemsg",
        "getfilesmsg",
        "getfilelabelsmsg",
        "createsnapshotmsg",
        "getsnapshotmsg",
        "getsnapshotsmsg",
        "removesnapshotmsg",
        "removeallsnapshotmsg",
        "addlocationmsg",
        "getlocationmsg",
        "getlocationsmsg",
        "removelocationmsg",
        "channelappendmsg",
        "channelreadmsg",
        "subscribechannelmsg",
        "addblueprintdefinitionmsg",
        "getblueprintdefinitionmsg",
        "getblueprintdefinitionsmsg",
        "removeblueprintdefinitionmsg",
        "addblueprintmsg",
        "getblueprintmsg",
        "getblueprintsmsg",
        "updateblueprintmsg",
        "removeblueprintmsg",
        "updateblueprintstatusmsg",
        "reconcileblueprintmsg",
        "getblueprinthistorymsg",
    ]
)

# What CORE can do without, by COLONIES-RPC section 2.0.1; and what Colonies does not know.
EXTENSIONS: Final = UNSUPPORTED | {server.GetServerInfo.msgtype(), server.GetCluster.msgtype()}
OURS: Final = frozenset(
    kind.msgtype()
    for kind in (
        process.ReleaseProcess,
        process.Renew,
        colony.GetMemberHistory,
        audit.GetAudit,
        audit.GetEvidence,
        colony.SetPolicy,
        colony.GetPolicy,
        *claims.MESSAGES,
    )
)


def level(msgtype: str) -> str:
    """`CORE` and `EXT` of Colonies, or `ours`."""
    if msgtype in OURS:
        return "ours"
    return "EXT" if msgtype in EXTENSIONS else "CORE"
