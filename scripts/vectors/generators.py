"""Generators: full messages, and the form in which pycolonies adds and removes one."""

from __future__ import annotations

from typing import Any, Final

_GENERATOR: Final = "cd" * 32
_SPEC: Final = '{"colonyname": "c-1", "functionspecs": [{"nodename": "a", "funcname": "f"}]}'

FULL: Final[dict[str, dict[str, Any]]] = {
    "addgeneratormsg": {
        "generator": {
            "colonyname": "c-1",
            "name": "collect",
            "workflowspec": _SPEC,
            "trigger": 3,
            "timeout": 60,
        }
    },
    "getgeneratormsg": {"generatorid": _GENERATOR},
    "resolvegeneratormsg": {"colonyname": "c-1", "generatorname": "collect"},
    "getgeneratorsmsg": {"colonyname": "c-1", "count": 100},
    "packgeneratormsg": {"generatorid": _GENERATOR, "arg": "\u00e5 1.5"},
    "removegeneratormsg": {"generatorid": _GENERATOR, "all": True},
}
SENT: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "addgeneratormsg": {
        "a Generator of the Go client": {
            "generator": {
                "generatorid": "",
                "initiatorid": "",
                "initiatorname": "",
                "colonyname": "c-1",
                "name": "collect",
                "workflowspec": _SPEC,
                "trigger": 3,
                "timeout": -1,
                "firstpack": "0001-01-01T00:00:00Z",
                "lastrun": "0001-01-01T00:00:00Z",
                "queuesize": 0,
                "checkerperiod": 0,
            }
        }
    },
    "removegeneratormsg": {"remove_generator of pycolonies": {"generatorid": _GENERATOR}},
}
