"""Logs of processes and executors: COLONIES-RPC sections 2.10 and 3.9."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.message import Int, Message

MAX_LOGS: Final = 500
MAX_SEARCH_LOGS: Final = 100
MAX_SEARCH_DAYS: Final = 30


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """A line; `timestamp` in nanoseconds since 1970."""

    processid: str = ""
    colonyname: str = ""
    executorname: str = ""
    message: str = ""
    timestamp: Int = 0


class AddLog(Message, tag="addlogmsg"):
    """Write a line to a running process; its assignee only."""

    processid: str = ""
    message: str = ""


class AddExecutorLog(Message, tag="addexecutorlogmsg"):
    """Write a line to an executor's own log."""

    colonyname: str = ""
    executorname: str = ""
    message: str = ""


class GetLogs(Message, tag="getlogsmsg"):
    """Lines of an executor, else of a process; `since` in nanoseconds since 1970."""

    colonyname: str = ""
    processid: str = ""
    executorname: str = ""
    count: Int = 0
    since: Int = 0
    latest: bool = False


class SearchLogs(Message, tag="searchlogsmsg"):
    """Lines that contain a text."""

    colonyname: str = ""
    text: str = ""
    days: Int = 0
    count: Int = 0


MESSAGES: Final = (AddLog, AddExecutorLog, GetLogs, SearchLogs)
