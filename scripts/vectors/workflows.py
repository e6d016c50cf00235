"""Workflows: the forms in which the published clients write them, and graphs that are refused."""

from __future__ import annotations

import json
from typing import Any, Final

GRAPH = "cd" * 32
PARENT = "ab" * 32
CHILD = "ef" * 32

# What pycolonies' `model_dump` makes of a node like those of its own tests.
_PYTHON_SPEC: dict[str, Any] = {
    "nodename": "",
    "funcname": "",
    "args": [],
    "kwargs": {},
    "priority": 0,
    "maxwaittime": 0,
    "maxexectime": -1,
    "maxretries": 3,
    "conditions": {
        "colonyname": "c-1",
        "executornames": None,
        "executortype": "t",
        "dependencies": [],
        "nodes": 0,
        "cpu": "",
        "processes": 0,
        "processespernode": 0,
        "mem": "",
        "storage": "",
        "gpu": {"name": "", "mem": "", "count": 0, "nodecount": 0},
        "walltime": 0,
    },
    "label": "",
    "fs": {"mount": "", "snapshots": None, "dirs": None},
    "env": {"test_key": "test_value2"},
    "channels": [],
}
# What a client written in Go sends: every member, null for a list that is not there.
_GO_SPEC: dict[str, Any] = {
    "nodename": "",
    "funcname": "f",
    "args": None,
    "kwargs": None,
    "priority": 0,
    "maxwaittime": 0,
    "maxexectime": 0,
    "maxretries": 0,
    "conditions": {
        "colonyname": "",
        "executornames": None,
        "executortype": "t",
        "dependencies": None,
        "nodes": 0,
        "cpu": "",
        "processes": 0,
        "processespernode": 0,
        "mem": "",
        "storage": "",
        "gpu": {"name": "", "mem": "", "count": 0, "nodecount": 0},
        "walltime": 0,
    },
    "label": "",
    "fs": {"mount": "", "snapshots": None, "dirs": None},
    "env": None,
    "channels": None,
}


def _python(name: str, *parents: str) -> dict[str, Any]:
    conditions = {**_PYTHON_SPEC["conditions"], "dependencies": list(parents)}
    return {**_PYTHON_SPEC, "nodename": name, "conditions": conditions}


def _go(name: str, *parents: str) -> dict[str, Any]:
    conditions = {**_GO_SPEC["conditions"], "dependencies": list(parents) or None}
    return {**_GO_SPEC, "nodename": name, "conditions": conditions}


def _typescript(name: str, *parents: str) -> dict[str, Any]:
    return {
        "nodename": name,
        "funcname": name,
        "conditions": {
            "colonyname": "c-1",
            "executortype": "t",
            **({"dependencies": list(parents)} if parents else {}),
        },
        "maxwaittime": 60,
        "maxexectime": 60,
    }


FULL: Final[dict[str, dict[str, Any]]] = {
    "submitworkflowspecmsg": {
        "spec": {"colonyname": "c-1", "functionspecs": [_python("n0"), _python("n1", "n0")]}
    },
    "getprocessgraphmsg": {"processgraphid": GRAPH},
    "getprocessgraphsmsg": {"colonyname": "c-1", "count": 100, "state": 2},
    "removeprocessgraphmsg": {"processgraphid": GRAPH},
    "removeallprocessgraphsmsg": {"colonyname": "c-1", "state": 2},
    "cancelprocessgraphmsg": {"processgraphid": GRAPH},
    "addchildmsg": {
        "processgraphid": GRAPH,
        "parentprocessid": PARENT,
        "childprocessid": CHILD,
        "insert": True,
        "spec": _python("n2"),
    },
}
"""What a full request of each type holds besides `msgtype`."""

SENT: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "submitworkflowspecmsg": {
        "typescript": {
            "spec": {
                "colonyname": "c-1",
                "functionspecs": [_typescript("task1"), _typescript("task2", "task1")],
            }
        },
        "go": {"spec": {"colonyname": "c-1", "functionspecs": [_go("a"), _go("b", "a")]}},
    },
    "getprocessgraphsmsg": {
        "pycolonies without a state": {"colonyname": "c-1", "count": 10},
        "go": {"colonyname": "c-1", "count": 10, "state": 0},
    },
    "removeprocessgraphmsg": {"go": {"processgraphid": GRAPH, "all": False}},
    "removeallprocessgraphsmsg": {
        "pycolonies without a state": {"colonyname": "c-1"},
        "go": {"colonyname": "c-1", "state": -1},
    },
    "addchildmsg": {
        "pycolonies, a leaf": {
            "processgraphid": GRAPH,
            "parentprocessid": PARENT,
            "childprocessid": "",
            "insert": False,
            "spec": _python("n2"),
        },
        "go": {
            "processgraphid": GRAPH,
            "parentprocessid": PARENT,
            "childprocessid": "",
            "insert": False,
            "spec": _go("n2"),
        },
    },
}
"""More forms of a request, by who writes it."""


def bad_graphs() -> list[dict[str, str]]:
    """Workflows that can be read and are refused whole."""
    return [
        {
            "why": why,
            "code": code,
            "text": json.dumps({"colonyname": "c-1", "functionspecs": nodes}),
        }
        for why, code, nodes in _BAD
    ]


def _node(name: str, *parents: str, **changes: Any) -> dict[str, Any]:
    conditions = {"dependencies": list(parents), **changes.pop("conditions", {})}
    return {"nodename": name, "funcname": "f", "conditions": conditions, **changes}


_BAD: Final[list[tuple[str, str, list[dict[str, Any]] | None]]] = [
    ("no nodes", "invalid_value", []),
    ("null for the nodes", "invalid_value", None),
    ("no name", "invalid_value", [_node("a"), _node("")]),
    ("name missing", "invalid_value", [{"funcname": "f"}]),
    ("name twice", "invalid_value", [_node("a"), _node("b"), _node("a")]),
    ("unknown dependency", "invalid_value", [_node("a"), _node("b", "c")]),
    ("empty dependency", "invalid_value", [_node("a"), _node("b", "")]),
    ("waits for itself", "invalid_value", [_node("a"), _node("b", "b")]),
    ("cycle of two", "invalid_value", [_node("a", "b"), _node("b", "a")]),
    (
        "cycle below a root",
        "invalid_value",
        [_node("r"), _node("a", "r", "c"), _node("b", "a"), _node("c", "b")],
    ),
    ("priority of the last", "invalid_value", [_node("a"), _node("b", "a", priority=50_001)]),
    ("memory of the last", "bad_amount", [_node("a"), _node("b", conditions={"mem": "1.5Gi"})]),
    ("cpu of the last", "bad_amount", [_node("a"), _node("b", conditions={"cpu": "much"})]),
    ("args of the last", "wrong_type", [_node("a"), _node("b", args={})]),
    ("control in a name", "bad_name", [_node("a\u0007")]),
    ("name too long", "bad_name", [_node("n" * 2_000)]),
]
