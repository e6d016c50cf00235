"""What replies look like: COLONIES-RPC section 3. Exact members, exact JSON types, no nulls."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Shape = Callable[[Any], bool]

TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
UNSET = "0001-01-01T00:00:00Z"


def text(value: Any) -> bool:
    return isinstance(value, str)


def number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


def hex64(value: Any) -> bool:
    return text(value) and re.fullmatch("[0-9a-f]{64}", value) is not None


def time(value: Any) -> bool:
    """Set, or exactly the unset one; never the year 0 or a local zone."""
    if not text(value) or not TIME.fullmatch(value):
        return False
    return value == UNSET or not value.startswith("000")


def anything(value: Any) -> bool:
    del value
    return True


def exactly(wanted: Any) -> Shape:
    return lambda value: value == wanted


def either(*shapes: Shape) -> Shape:
    return lambda value: any(shape(value) for shape in shapes)


def null(value: Any) -> bool:
    return value is None


def many(shape: Shape) -> Shape:
    return lambda value: isinstance(value, list) and all(shape(item) for item in value)


def mapping(shape: Shape) -> Shape:
    return lambda value: isinstance(value, dict) and all(shape(item) for item in value.values())


def record(optional: dict[str, Shape] | None = None, **members: Shape) -> Shape:
    """An object with these members and no other."""
    maybe = optional or {}

    def check(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        known = members | maybe
        wrong = {name for name in value if name not in known or not known[name](value[name])}
        missing = members.keys() - value.keys()
        assert not wrong | missing, f"wrong {sorted(wrong)}, missing {sorted(missing)} in {value}"
        return True

    return check


NOTHING = record()
VERSION = record(buildversion=text, buildtime=text, msgtype=exactly("versionmsg"))
INFO = record(
    buildversion=text,
    buildtime=text,
    backends=many(record(type=exactly("http"), port=number, host=text)),
)
NODE = record(name=text, host=text, port=number, peerport=number, relayport=number, apiport=number)
CLUSTER = record(nodes=many(NODE), leader=NODE)
STATISTICS = record(
    **dict.fromkeys(
        [
            "colonies",
            "executors",
            "activeexecutors",
            "unregisteredexecutors",
            *(
                f"{state}{kind}"
                for kind in ("processes", "workflows")
                for state in ("waiting", "running", "successful", "failed", "cancelled")
            ),
        ],
        number,
    )
)
COLONY = record(colonyid=hex64, name=text)
PAUSE_STATUS = record(msgtype=exactly("pausestatusreplymsg"), colonyname=text, ispaused=flag)
SERVER_ID = record(msgtype=exactly("changeserveridmsg"), serverid=hex64)
COLONY_ID = record(msgtype=exactly("changecolonyidmsg"), colonyname=text, colonyid=hex64)
USER_ID = record(msgtype=exactly("changeuseridmsg"), colonyname=text, userid=hex64)
EXECUTOR_ID = record(msgtype=exactly("changeexecutoridmsg"), colonyname=text, executorid=hex64)
MEMBER_CHANGE = record(
    optional={"seal": text},
    what=text,
    name=text,
    by=hex64,
    timestamp=number,
    digest=hex64,
    signature=text,
    payload=text,
)
AUDIT_PAGE = record(lines=many(text), cursor=text)
EVIDENCE = record(header=text, checkpoints=many(text), lines=many(text), cursor=text)
ATTEMPT = record(optional={"lease": seconds}, number=number, token=text)
USER = record(colonyname=text, userid=hex64, name=text, email=text, phone=text)
POLICY = record(colonyname=text, plainrequests=text)
CLAIM = record(
    claim=hex64, executortype=text, count=number, used=number, expires=number, approval=text
)
ENROLLED = record(
    executorname=text,
    executorid=hex64,
    executortype=text,
    state=number,
    hw=text,
    claim=hex64,
    enrolled=number,
)
EXECUTOR = record(
    optional={
        "locationname": text,
        "blueprintid": text,
        "blueprintgen": number,
        "sealed": exactly(True),
    },
    executorid=hex64,
    executortype=text,
    executorname=text,
    colonyname=text,
    state=number,
    requirefuncreg=flag,
    commissiontime=time,
    lastheardfromtime=time,
    capabilities=record(
        hardware=either(null, many(anything)), software=either(null, many(anything))
    ),
    allocations=record(projects=either(null, mapping(anything))),
)
FUNCTION = record(
    optional={"description": text, "args": many(anything), "locationname": text},
    functionid=hex64,
    executorname=text,
    executortype=text,
    colonyname=text,
    funcname=text,
    counter=number,
    minwaittime=seconds,
    maxwaittime=seconds,
    minexectime=seconds,
    maxexectime=seconds,
    avgwaittime=seconds,
    avgexectime=seconds,
)
ATTRIBUTE = record(
    attributeid=hex64,
    targetid=hex64,
    targetcolonyname=text,
    targetprocessgraphid=text,
    state=number,
    attributetype=number,
    key=text,
    value=text,
)
LOG = record(
    processid=either(hex64, exactly("")),
    colonyname=text,
    executorname=text,
    message=text,
    timestamp=number,
)
GPU = record(name=text, mem=text, count=number, nodecount=number)
CONDITIONS = record(
    optional={"locationname": text},
    colonyname=text,
    executornames=either(null, many(text)),
    executortype=text,
    dependencies=many(text),
    nodes=number,
    cpu=text,
    processes=number,
    processespernode=number,
    mem=text,
    storage=text,
    gpu=GPU,
    walltime=number,
)
SPEC = record(
    optional={"channels": many(text)},
    nodename=text,
    funcname=text,
    args=many(anything),
    kwargs=mapping(anything),
    priority=number,
    maxwaittime=number,
    maxexectime=number,
    maxretries=number,
    conditions=CONDITIONS,
    label=text,
    fs=record(
        mount=text, snapshots=either(null, many(anything)), dirs=either(null, many(anything))
    ),
    env=mapping(text),
)
PROCESS = record(
    processid=hex64,
    initiatorid=hex64,
    initiatorname=text,
    assignedexecutorid=either(hex64, exactly("")),
    isassigned=flag,
    state=number,
    prioritytime=number,
    submissiontime=time,
    starttime=time,
    endtime=time,
    waitdeadline=time,
    execdeadline=time,
    retries=number,
    attributes=many(ATTRIBUTE),
    spec=SPEC,
    waitforparents=flag,
    parents=many(text),
    children=many(text),
    processgraphid=text,
    **{"in": many(anything), "out": many(anything)},
    errors=many(text),
)
NODE = record(
    id=hex64,
    data=record(label=text),
    position=record(x=number, y=number),
    type=either(exactly("input"), exactly("output"), exactly("")),
    style=record(color=text, background=text),
)
CRON = record(
    cronid=hex64,
    initiatorid=hex64,
    initiatorname=text,
    colonyname=text,
    name=text,
    cronexpression=text,
    interval=number,
    random=flag,
    nextrun=time,
    lastrun=time,
    workflowspec=text,
    prevprocessgraphid=either(hex64, exactly("")),
    waitforprevprocessgraph=flag,
    checkerperiod=number,
)
EDGE = record(id=text, source=hex64, target=hex64, animated=flag)
GENERATOR = record(
    optional={"disabledreason": text},
    generatorid=hex64,
    initiatorid=hex64,
    initiatorname=text,
    colonyname=text,
    name=text,
    workflowspec=text,
    trigger=number,
    timeout=number,
    firstpack=time,
    lastrun=time,
    queuesize=number,
    checkerperiod=number,
)
GRAPH = record(
    processgraphid=hex64,
    initiatorid=hex64,
    initiatorname=text,
    colonyname=text,
    rootprocessids=many(hex64),
    state=number,
    submissiontime=time,
    starttime=time,
    endtime=time,
    processids=many(hex64),
    nodes=many(NODE),
    edges=many(EDGE),
)
