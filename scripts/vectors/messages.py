"""Messages: each type, as each kind of client writes it, and each way to get it wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import inspect

from colonist_protocol import codec, messages
from colonist_protocol.function_spec import FunctionSpec, normal_form
from colonist_protocol.message import Message
from scripts.vectors import crons, generators, workflows

ID = "3fc05cf3df4b494e95d6a3d297a34f19938f7daa7422ab0d4f794454133341ac"
PROCESS = "ab" * 32

SPEC: dict[str, Any] = {
    "nodename": "n1",
    "funcname": "f",
    "args": ["a", 1],
    "kwargs": {"k": "v"},
    "priority": 1,
    "maxwaittime": 100,
    "maxexectime": 60,
    "maxretries": 3,
    "conditions": {
        "colonyname": "c-1",
        "executornames": ["e-1"],
        "executortype": "t",
        "dependencies": ["n0"],
        "nodes": 1,
        "cpu": "1000m",
        "processes": 2,
        "processespernode": 3,
        "mem": "1Gi",
        "storage": "10GB",
        "gpu": {"name": "A", "mem": "2048Mi", "count": 1, "nodecount": 2},
        "walltime": 4,
    },
    "label": "lab",
    "fs": {"mount": "/m", "snapshots": None, "dirs": None},
    "env": {"E": "1"},
    "channels": ["chat"],
    "lateresult": "reject",
    "overlap": "never",
    "maxrenewals": 10,
}
EXECUTOR: dict[str, Any] = {
    "executorid": ID,
    "executortype": "t",
    "executorname": "e-1",
    "colonyname": "c-1",
    "state": 0,
    "requirefuncreg": True,
    "capabilities": {
        "hardware": [
            {"model": "m", "cores": 4, "mem": "8Gi", "gpu": {"name": "A"}, "network": ["10.0.0.1"]}
        ],
        "software": [{"name": "colonist", "type": "agent", "version": "1"}],
    },
    "allocations": {"projects": {"p": {"allocatedcpu": 1, "usedcpu": 2}}},
    "sealed": True,
}
# What a full request of each type holds besides `msgtype`.
FULL: dict[str, dict[str, Any]] = {
    "versionmsg": {},
    "getserverinfomsg": {},
    "getstatisticsmsg": {},
    "getclustermsg": {},
    "getauditmsg": {"colonyname": "c-1", "cursor": "1.2.3.q.", "size": 1_000_000},
    "getevidencemsg": {"processid": ID, "cursor": "1.2.3", "size": 1_000_000},
    "changeserveridmsg": {"serverid": ID},
    "addcolonymsg": {"colony": {"colonyid": ID, "name": "c-1"}},
    "removecolonymsg": {"colonyname": "c-1"},
    "getcoloniesmsg": {},
    "getcolonymsg": {"colonyname": "c-1"},
    "getcolonystatsmsg": {"colonyname": "c-1"},
    "pauseassignmentsmsg": {"colonyname": "c-1"},
    "resumeassignmentsmsg": {"colonyname": "c-1"},
    "getpausestatusmsg": {"colonyname": "c-1"},
    "changecolonyidmsg": {"colonyname": "c-1", "colonyid": ID},
    "getmemberhistorymsg": {
        "colonyname": "c-1",
        "count": 100,
        "since": 1_795_332_674_299_411_042,
        "before": 1_795_332_674_299_411_043,
    },
    "setpolicymsg": {"colonyname": "c-1", "plainrequests": "refuse"},
    "getpolicymsg": {"colonyname": "c-1"},
    "addclaimmsg": {
        "colonyname": "c-1",
        "claim": ID,
        "executortype": "t",
        "count": 100,
        "expires": 1_795_332_674_299,
        "approval": "person",
    },
    "getclaimsmsg": {"colonyname": "c-1"},
    "removeclaimmsg": {"colonyname": "c-1", "claim": ID, "executors": True},
    "getenrolledmsg": {"colonyname": "c-1", "claim": ID, "state": 0},
    "enrolmsg": {
        "colonyname": "c-1",
        "claim": ID,
        "executorid": ID,
        "hw": "esp32-24:6f:28:aa:bb:cc",
        "proof": "ab" * 65,
    },
    "addusermsg": {
        "user": {
            "colonyname": "c-1",
            "userid": ID,
            "name": "\u00e5ke",
            "email": "a@b",
            "phone": "1",
        }
    },
    "getusersmsg": {"colonyname": "c-1"},
    "getusermsg": {"colonyname": "c-1", "name": "\u00e5ke"},
    "getuserbyidmsg": {"colonyname": "c-1", "userid": ID},
    "removeusermsg": {"colonyname": "c-1", "name": "\u00e5ke"},
    "changeuseridmsg": {"colonyname": "c-1", "userid": ID},
    "addexecutormsg": {"executor": EXECUTOR},
    "getexecutorsmsg": {"colonyname": "c-1"},
    "getexecutormsg": {"colonyname": "c-1", "executorname": "e-1"},
    "getexecutorbyidmsg": {"colonyname": "c-1", "executorid": ID},
    "approveexecutormsg": {"colonyname": "c-1", "executorname": "e-1"},
    "rejectexecutormsg": {"colonyname": "c-1", "executorname": "e-1"},
    "removeexecutormsg": {"colonyname": "c-1", "executorname": "e-1"},
    "changeexecutoridmsg": {"colonyname": "c-1", "executorid": ID},
    "addfunctionmsg": {
        "fun": {
            "executorname": "e-1",
            "executortype": "t",
            "colonyname": "c-1",
            "funcname": "f",
            "description": "what it does",
            "args": [{"name": "a", "type": "str", "required": True, "enum": ["x", "y"]}],
        }
    },
    "getfunctionsmsg": {"colonyname": "c-1", "executorname": "e-1"},
    "removefunctionmsg": {"functionid": PROCESS},
    "submitfuncspecmsg": {"spec": SPEC},
    "assignprocessmsg": {
        "colonyname": "c-1",
        "timeout": 60,
        "availablecpu": "4000m",
        "availablemem": "8Gi",
    },
    "getprocessesmsg": {
        "colonyname": "c-1",
        "count": 100,
        "state": -1,
        "executortype": "t",
        "label": "lab",
        "initiator": "\u00e5ke",
        "processgraphid": PROCESS,
        "executorid": ID,
    },
    "getprocessmsg": {"processid": PROCESS, "waitwhile": 1, "timeout": 60},
    "getprocesshistmsg": {"colonyname": "c-1", "executorid": ID, "seconds": 3600, "state": 2},
    "removeprocessmsg": {"processid": PROCESS},
    "removeallprocessesmsg": {"colonyname": "c-1", "state": -1},
    "closesuccessfulmsg": {"processid": PROCESS, "out": ["a", 1, None, {"b": [True]}]},
    "closefailedmsg": {"processid": PROCESS, "errors": ["too hot", "\u65e5\u672c"]},
    "setoutputmsg": {"processid": PROCESS, "out": ["a"]},
    "cancelprocessmsg": {"processid": PROCESS},
    "releaseprocessmsg": {"processid": PROCESS},
    "renewmsg": {"processid": PROCESS, "count": 3},
    "addattributemsg": {
        "attribute": {"targetid": PROCESS, "attributetype": 1, "key": "k", "value": "v"}
    },
    "getattributemsg": {"attributeid": PROCESS},
    "addlogmsg": {"processid": PROCESS, "message": "line 1\nline 2"},
    "addexecutorlogmsg": {"colonyname": "c-1", "executorname": "e-1", "message": "hej"},
    "getlogsmsg": {
        "colonyname": "c-1",
        "processid": PROCESS,
        "executorname": "",
        "count": 500,
        "since": 1_795_332_674_299_411_042,
        "latest": True,
    },
    "searchlogsmsg": {"colonyname": "c-1", "text": "hot", "days": 30, "count": 100},
    **workflows.FULL,
    **crons.FULL,
    **generators.FULL,
    "subscribeprocessmsg": {
        "processid": PROCESS,
        "executortype": "t",
        "state": 2,
        "timeout": 60,
        "colonyname": "c-1",
    },
    "subscribeprocessesmsg": {
        "colonyname": "c-1",
        "executortype": "t",
        "state": -1,
        "timeout": 60,
    },
}
WRONG: dict[type[inspect.Type], list[Any]] = {
    inspect.StrType: [1, True, [], {}],
    inspect.IntType: ["1", 1.0, True, [], {}],
    inspect.FloatType: ["1", True, []],
    inspect.BoolType: [0, "true", []],
    inspect.ListType: [{}, "a", 1, [1]],
    inspect.DictType: [[], "a", {"a": 1}],
    inspect.StructType: [[], "a", 1],
}
ITEM = "0"
BEYOND = [2**63, -(2**63) - 1, 2**64, 10**30]


def full() -> list[Message]:
    """One full message of each type."""
    return [codec.decode(canonical(name), messages.TYPED[name], name) for name in FULL]


def vectors() -> dict[str, Any]:
    return {
        "messages": [
            {"msgtype": name, "good": good(name), "bad": bad_forms(name)} for name in FULL
        ],
        "specs": [
            {"text": text, "normal": normal_text(text)}
            for text in (
                *("{}", json.dumps(SPEC), codec.encode(SPEC).decode(), PYCOLONIES, EXACT),
                *('{"conditions":{"executortype":"t"},"fs":{}}', '{"fs":{"mount":"/m","x":1.10}}'),
            )
        ],
        "bad_specs": [
            {"why": why, "code": code, "text": text}
            for why, code, text in (
                ("priority", "invalid_value", '{"priority":50001}'),
                ("priority", "invalid_value", '{"priority":-50001}'),
                ("args", "wrong_type", '{"args":{}}'),
                ("args", "wrong_type", '{"args":"a"}'),
                ("kwargs", "wrong_type", '{"kwargs":[]}'),
                ("fs", "wrong_type", '{"fs":[]}'),
                ("fs", "wrong_type", '{"fs":{"mount":1}}'),
                ("fs", "wrong_type", '{"fs":{"dirs":{}}}'),
                ("cpu", "bad_amount", '{"conditions":{"cpu":"1.5"}}'),
                ("mem", "bad_amount", '{"conditions":{"mem":"1gi"}}'),
                ("storage", "bad_amount", '{"conditions":{"storage":"x"}}'),
                ("gpu", "bad_amount", '{"conditions":{"gpu":{"mem":"-1"}}}'),
                ("label", "bad_name", '{"label":"a\\u0000b"}'),
                ("funcname", "bad_name", '{"funcname":"' + "f" * 1025 + '"}'),
                ("names", "bad_name", '{"conditions":{"executornames":["a\\nb"]}}'),
                ("lateresult", "invalid_value", '{"lateresult":"maybe"}'),
                ("overlap", "invalid_value", '{"overlap":"sometimes","maxexectime":1}'),
                ("overlap without a lease", "invalid_value", '{"overlap":"never"}'),
                ("maxrenewals", "invalid_value", '{"maxrenewals":-1}'),
                ("maxrenewals", "invalid_value", '{"maxrenewals":1000001}'),
            )
        ],
        "bad_workflows": workflows.bad_graphs(),
    }


# What pycolonies' helper `func_spec` makes, member for member.
PYCOLONIES = json.dumps(
    {
        **SPEC,
        "kwargs": None,
        "fs": None,
        "env": {},
        "channels": [],
        "conditions": {**SPEC["conditions"], "executornames": None, "gpu": None},
    }
)
# A client's numbers and escapes reach the executor as they were written.
EXACT = (
    '{"args": [1.10, null, 1e2, "\\u00e5\\/", {"a" : null}, 123456789012345678901234567890],'
    ' "kwargs": {"k": null, "a": 1.0}, "conditions": null, "env": null}'
)


def canonical(name: str) -> bytes:
    return codec.encode({"msgtype": name, **FULL[name]})


def good(name: str) -> list[dict[str, str]]:
    """Texts of one type and what each means, written by us."""
    kind = messages.TYPED[name]
    whole = {"msgtype": name, **FULL[name]}
    least = minimal(inspect.type_info(kind), whole)
    texts = {
        "canonical": codec.encode(codec.decode(canonical(name), kind, name)).decode(),
        "pycolonies": json.dumps(whole),
        "members turned round": json.dumps(turned(whole)),
        "minimal": codec.encode(least).decode(),
        "null for all that is optional": json.dumps(nulled(inspect.type_info(kind), least)),
        "unknown members": json.dumps({"futuremember": {"a": [None]}, **whole, "other": None}),
        **{
            form: json.dumps({"msgtype": name, **sent})
            for form, sent in (workflows.SENT | crons.SENT | generators.SENT).get(name, {}).items()
        },
    }
    return [
        {"form": form, "text": text, "means": meaning(name, text)} for form, text in texts.items()
    ]


def meaning(name: str, text: str) -> str:
    return codec.encode(codec.decode(text.encode(), messages.TYPED[name], name)).decode()


def normal_text(text: str) -> str:
    return codec.encode(normal_form(codec.decode(text.encode(), FunctionSpec, "spec"))).decode()


def turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: turned(each) for name, each in reversed(value.items())}
    return [turned(each) for each in value] if isinstance(value, list) else value


def minimal(kind: inspect.Type, value: Any) -> Any:
    """Only what is required."""
    if not isinstance(kind, inspect.StructType):
        return value
    kept = {field.encode_name: field.type for field in kind.fields if field.required}
    found = {name: minimal(inner, value[name]) for name, inner in kept.items()}
    return {"msgtype": value["msgtype"], **found} if kind.tag_field else found


def nulled(kind: inspect.Type, least: Any) -> Any:
    if not isinstance(kind, inspect.StructType):
        return least
    inner = {field.encode_name: field.type for field in kind.fields}
    nulls = {name: None for name in inner if name not in least}
    return {
        name: nulled(inner.get(name, kind), each) if name in inner else each
        for name, each in least.items()
    } | nulls


def bad_forms(name: str) -> list[dict[str, str]]:
    """Each member with each wrong type, beyond 64 bits, missing, twice."""
    found: list[dict[str, str]] = []
    whole = {"msgtype": name, **FULL[name]}

    def add(why: str, code: str, text: str) -> None:
        found.append({"why": why, "code": code, "text": text})

    whole = minimal(inspect.type_info(messages.TYPED[name]), whole)
    text = json.dumps(whole)
    add("msgtype twice", "duplicate_member", text[:-1] + f', "msgtype": "{name}"}}')
    add("msgtype of another", "msgtype_mismatch", json.dumps({**whole, "msgtype": "x" + name}))
    add("no msgtype", "msgtype_mismatch", json.dumps({**whole, "msgtype": None}))
    add("deep", "too_deep", text[:-1] + ', "x": ' + "[" * 32 + "]" * 32 + "}")
    for path, field in members(inspect.type_info(messages.TYPED[name])):
        if field.required:
            add(
                f"no {'.'.join(path)}",
                "missing_member",
                json.dumps(replaced(whole, path, msgspec.UNSET)),
            )
            add(f"{'.'.join(path)} null", "missing_member", json.dumps(replaced(whole, path, None)))
        for wrong in wrong_values(field):
            text = json.dumps(replaced(whole, path, wrong))
            add(f"{'.'.join(path)} {json.dumps(wrong)}", "wrong_type", text)
        if isinstance(field.type, inspect.IntType):
            for beyond in BEYOND:
                text = json.dumps(replaced(whole, path, beyond))
                add(f"{'.'.join(path)} beyond 64 bits", "out_of_bounds", text)
    return found


def wrong_values(field: inspect.Field) -> list[Any]:
    kind = field.type
    if isinstance(kind, inspect.UnionType):
        kind = next(each for each in kind.types if type(each) in WRONG)
    if isinstance(kind, inspect.ListType) and isinstance(kind.item_type, inspect.StructType):
        return [{}, "a", 1, [[]]]
    if isinstance(kind, inspect.RawType):
        return [{}, "a", 1] if field.encode_name == "out" else []
    return WRONG[type(kind)]


def members(
    kind: inspect.Type, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], inspect.Field]]:
    if not isinstance(kind, inspect.StructType):
        return []
    found: list[tuple[tuple[str, ...], inspect.Field]] = []
    for field in kind.fields:
        inner = (*path, field.encode_name)
        found += [(inner, field), *members(field.type, inner)]
        if isinstance(field.type, inspect.ListType):
            found += members(field.type.item_type, (*inner, ITEM))
    return found


def replaced(value: dict[str, Any], path: tuple[str, ...], new: Any) -> dict[str, Any]:
    """A copy with one member changed; `UNSET` takes it away. `ITEM`: of the only item of a list."""
    name, *rest = path
    if rest and rest[0] == ITEM:
        return {**value, name: [replaced({}, tuple(rest[1:]), new)]}
    if rest:
        return {**value, name: replaced(value.get(name, {}), tuple(rest), new)}
    kept = {each: inner for each, inner in value.items() if each != name}
    return kept if new is msgspec.UNSET else {**kept, name: new}
