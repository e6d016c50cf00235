"""What stands under the keys: msgpack arrays, to which members may be added at the end only.

The live and closed parts of a process are the core's own values (`colonist_core.process`).
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from colonist_core.function import Tally
from colonist_core.process import Closed, Live
from colonist_protocol.executor import Allocations, Capabilities
from colonist_protocol.function import FunctionArgument

T = TypeVar("T")

SCHEMA: Final = 1


class ColonyRecord(msgspec.Struct, frozen=True, array_like=True):
    """`c/tag`."""

    name: str
    owner: str
    is_paused: bool = False


class ExecutorRecord(msgspec.Struct, frozen=True, array_like=True):
    """`x/tag/name`: the part that changes seldom; presence stands elsewhere."""

    id: str
    type: str
    state: int
    commissioned_ns: int
    location: str = ""
    requires_functions: bool = False
    capabilities: Capabilities = Capabilities()
    allocations: Allocations = Allocations()
    blueprint: str = ""
    blueprint_generation: int = 0


class UserRecord(msgspec.Struct, frozen=True, array_like=True):
    """`u/tag/name`."""

    id: str
    email: str = ""
    phone: str = ""


class FunctionRecord(msgspec.Struct, frozen=True, array_like=True):
    """`f/tag/name/func`: the tally holds every run that was closed up to revision `through`."""

    id: str
    executor: str
    name: str
    description: str = ""
    args: tuple[FunctionArgument, ...] = ()
    tally: Tally = Tally()
    through: int = 0


class Birth(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`p/pid`: the request that submitted a process, and who sent it."""

    payload: bytes
    signature: bytes
    initiator_id: str
    initiator: str
    priority_ns: int
    submitted_ns: int


class Ended(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`y/..`: what lists, history and tallies need of a closed process without reading it."""

    type: str
    label: str
    initiator: str
    executor: str
    funcname: str
    submitted_ns: int
    started_ns: int
    ended_ns: int


class AttributeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`a/pid/attr`."""

    kind: int
    key: str
    value: str


class LogRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`l/pid/attempt,time`."""

    message: str
    executor: str
    process: bytes
    time_ns: int


encode: Final = msgspec.msgpack.Encoder().encode

decode_colony: Final = msgspec.msgpack.Decoder(ColonyRecord).decode
decode_executor: Final = msgspec.msgpack.Decoder(ExecutorRecord).decode
decode_user: Final = msgspec.msgpack.Decoder(UserRecord).decode
decode_function: Final = msgspec.msgpack.Decoder(FunctionRecord).decode
decode_birth: Final = msgspec.msgpack.Decoder(Birth).decode
decode_live: Final = msgspec.msgpack.Decoder(Live).decode
decode_closed: Final = msgspec.msgpack.Decoder(Closed).decode
decode_ended: Final = msgspec.msgpack.Decoder(Ended).decode
decode_attribute: Final = msgspec.msgpack.Decoder(AttributeRecord).decode
decode_log: Final = msgspec.msgpack.Decoder(LogRecord).decode
decode_heard: Final = msgspec.msgpack.Decoder(dict[bytes, int]).decode
