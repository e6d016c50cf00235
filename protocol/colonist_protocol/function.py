"""Functions that executors announce, with statistics: COLONIES-RPC sections 2.5, 3.7 and 4.10."""

from __future__ import annotations

from typing import Final

import msgspec

from colonist_protocol.message import Int, Message


class FunctionArgument(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An argument of a function, for people."""

    name: str = ""
    type: str = ""
    description: str = ""
    required: bool = False
    enum: list[str] = []


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function of an executor; times in seconds."""

    functionid: str = ""
    executorname: str
    executortype: str = ""
    colonyname: str
    funcname: str
    description: str | msgspec.UnsetType = msgspec.UNSET
    args: list[FunctionArgument] | msgspec.UnsetType = msgspec.UNSET
    counter: Int = 0
    minwaittime: float = 0.0
    maxwaittime: float = 0.0
    minexectime: float = 0.0
    maxexectime: float = 0.0
    avgwaittime: float = 0.0
    avgexectime: float = 0.0
    locationname: str | msgspec.UnsetType = msgspec.UNSET


class AddFunction(Message, tag="addfunctionmsg"):
    """Announce a function; the executor itself only."""

    function: Function = msgspec.field(name="fun")


class GetFunctions(Message, tag="getfunctionsmsg"):
    """List functions of a colony or of one executor."""

    colonyname: str = ""
    executorname: str = ""


class RemoveFunction(Message, tag="removefunctionmsg"):
    """Withdraw a function; the executor itself only."""

    functionid: str = ""


MESSAGES: Final = (AddFunction, GetFunctions, RemoveFunction)
