"""Crons: full messages, and the form in which pycolonies adds one."""

from __future__ import annotations

from typing import Any, Final

_CRON = "cd" * 32
_SPEC = '{"colonyname": "c-1", "functionspecs": [{"nodename": "a", "funcname": "f"}]}'

FULL: Final[dict[str, dict[str, Any]]] = {
    "addcronmsg": {
        "cron": {
            "colonyname": "c-1",
            "name": "nightly",
            "cronexpression": "TZ=Europe/Berlin 0 30 3 * * mon-fri",
            "interval": -1,
            "random": False,
            "waitforprevprocessgraph": True,
            "workflowspec": _SPEC,
        }
    },
    "getcronmsg": {"cronid": _CRON},
    "getcronsmsg": {"colonyname": "c-1", "count": 100},
    "runcronmsg": {"cronid": _CRON},
    "removecronmsg": {"cronid": _CRON, "all": True},
}
SENT: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "addcronmsg": {
        "add_cron of pycolonies": {
            "cron": {
                "name": "nightly",
                "colonyname": "c-1",
                "interval": -1,
                "waitforprevprocessgrap": True,
                "cronexpression": "0/1 * * * * *",
                "workflowspec": _SPEC,
            }
        }
    },
    "removecronmsg": {"del_cron of pycolonies": {"all": False, "cronid": _CRON}},
}
