"""Every key of the store, and nothing else builds one. Binary; key order is list order.

| key | value |
|---|---|
| `c/tag`, `cn/name` | colony; name -> tag |
| `i/id/tag` | identity -> what it is there |
| `x/tag/name`, `u/tag/name`, `f/tag/name/func` | executor, user, function |
| `p/pid`, `s/pid`, `z/pid` | birth (never rewritten), live part, closed part of a process |
| `y/tag/kind,state,~ended/pid` | closed processes, newest first, with what lists filter by |
| `e/pid/n` | older events of a process, from number n on |
| `o/pid`, `a/pid/attr`, `ai/attr`, `l/pid/attempt,time` | output, attribute, its index, log line |
| `n/node`, `nh/node/part` | a running node; when its executors were last heard |
| `m/..` | housekeeping: schema, colonies whose remains are to be swept |

A process id is `colony tag 4, birth minute 4, 20 bytes, member 4`: what belongs together is
contiguous, and a colony made anew meets nothing old.
"""

from __future__ import annotations

import hashlib
from typing import Final

from colonist_protocol.errors import NameFormError
from colonist_protocol.identity import is_id
from colonist_protocol.names import check_name

TAG_BYTES: Final = 4
MAX_NAME_BYTES: Final = 255
PID_BYTES: Final = 32
ATTRIBUTE_BYTES: Final = 32
WID_BYTES: Final = 28
RANDOM_BYTES: Final = 20
MINUTE_NS: Final = 60_000_000_000

COLONY: Final = b"c/"
EXECUTOR: Final = b"x/"
USER: Final = b"u/"
FUNCTION: Final = b"f/"
BIRTH: Final = b"p/"
LIVE: Final = b"s/"
CLOSED: Final = b"z/"
ENDED: Final = b"y/"
OUTPUT: Final = b"o/"
ATTRIBUTE: Final = b"a/"
LOG: Final = b"l/"
EVENTS: Final = b"e/"
HEARD: Final = b"nh/"
REMAINS: Final = b"m/remains/"
SCHEMA: Final = b"m/schema"

BY_TAG: Final = (
    EXECUTOR,
    USER,
    FUNCTION,
    LIVE,
    BIRTH,
    CLOSED,
    ENDED,
    OUTPUT,
    ATTRIBUTE,
    LOG,
    EVENTS,
)

_MAX_FUNCTION_BYTES: Final = 128
_HASHED: Final = b"\x01"
"""No name begins so: control characters are refused."""
_KIND_PROCESS: Final = 0
_END_OF_TIME: Final = 2**64 - 1
_NO_MINUTE: Final = b"\xff\xff\xff\xff"
_LONE: Final = bytes(4)


def check_part(name: str, what: str) -> None:
    """Raise `NameFormError` unless this may be a part of a key: a name, and short in UTF-8 too."""
    if len(check_name(name, what).encode()) > MAX_NAME_BYTES:
        raise NameFormError(f"{what} is longer than {MAX_NAME_BYTES} bytes")


def colony(tag: bytes) -> bytes:
    """A colony's record."""
    return COLONY + tag


def colony_name(name: str) -> bytes:
    """The tag of the colony of that name."""
    return b"cn/" + name.encode()


def identity(id: str, tag: bytes) -> bytes:
    """What an id is in a colony."""
    return b"i/" + bytes.fromhex(id) + b"/" + tag


def executor(tag: bytes, name: str) -> bytes:
    """An executor's record."""
    return EXECUTOR + tag + b"/" + name.encode()


def user(tag: bytes, name: str) -> bytes:
    """A user's record."""
    return USER + tag + b"/" + name.encode()


def function(tag: bytes, executor: str, name: str) -> bytes:
    """A function's record. A name that is too long for a key is named by its hash."""
    text = name.encode()
    if len(text) > _MAX_FUNCTION_BYTES:
        text = _HASHED + hashlib.sha3_256(text).digest()
    return functions_of(tag, executor) + text


def functions_of(tag: bytes, executor: str) -> bytes:
    """All functions of an executor."""
    return FUNCTION + tag + b"/" + executor.encode() + b"\x00"


def birth(pid: bytes) -> bytes:
    """How a process was submitted."""
    return BIRTH + pid


def live(pid: bytes) -> bytes:
    """A process that has not ended."""
    return LIVE + pid


def closed(pid: bytes) -> bytes:
    """A process that has ended."""
    return CLOSED + pid


def ended(tag: bytes, state: int, ended_ns: int, pid: bytes) -> bytes:
    """A closed process in the list of its state, newest first."""
    order = (_END_OF_TIME - ended_ns).to_bytes(8, "big")
    return ended_in(tag, state) + order + pid


def ended_in(tag: bytes, state: int) -> bytes:
    """All closed processes in a state."""
    return ENDED + tag + bytes((_KIND_PROCESS, state))


def state_of_ended(key: bytes) -> int:
    """The state in a key that `ended` made."""
    return key[len(ENDED) + TAG_BYTES + 1]


def output(pid: bytes) -> bytes:
    """The output that a process was given while it ran."""
    return OUTPUT + pid


def events_of(pid: bytes) -> bytes:
    """All events that moved out of a process's record."""
    return EVENTS + pid


def events(pid: bytes, number: int) -> bytes:
    """Events from this number on."""
    return events_of(pid) + number.to_bytes(4, "big")


def attributes(pid: bytes) -> bytes:
    """All attributes of a process."""
    return ATTRIBUTE + pid


def attribute(pid: bytes, id: str) -> bytes:
    """One attribute."""
    return ATTRIBUTE + pid + bytes.fromhex(id)


def attribute_index(id: str) -> bytes:
    """Which process an attribute belongs to."""
    return b"ai/" + bytes.fromhex(id)


def logs(pid: bytes, attempt: int | None = None) -> bytes:
    """All lines of a process, or of one attempt."""
    return LOG + pid + (attempt.to_bytes(4, "big") if attempt is not None else b"")


def log(pid: bytes, attempt: int, time_ns: int) -> bytes:
    """One line."""
    return logs(pid, attempt) + time_ns.to_bytes(8, "big")


def executor_pid(tag: bytes, digest: bytes) -> bytes:
    """The id under which an executor's own log is kept; no process has it."""
    return tag + _NO_MINUTE + digest[:RANDOM_BYTES] + _LONE


def is_executor_pid(pid: bytes) -> bool:
    """Whether `executor_pid` made this."""
    return pid[TAG_BYTES : TAG_BYTES + 4] == _NO_MINUTE


def process_id(tag: bytes, now_ns: int, random: bytes) -> bytes:
    """The id of a process that belongs to no workflow."""
    return tag + (now_ns // MINUTE_NS).to_bytes(4, "big") + random + _LONE


def workflow_id(tag: bytes, now_ns: int, twenty: bytes) -> bytes:
    """What the ids of a workflow and of all its members begin with."""
    return tag + (now_ns // MINUTE_NS).to_bytes(4, "big") + twenty[:RANDOM_BYTES]


def graph_id(wid: bytes) -> bytes:
    """A workflow's own id: the one of a member number 0, which no process has."""
    return wid + _LONE


def member(wid: bytes, number: int) -> bytes:
    """The id of a workflow's member."""
    return wid + number.to_bytes(4, "big")


def number_of(pid: bytes) -> int:
    """Which member of its workflow a process is; 0: of none."""
    return int.from_bytes(pid[WID_BYTES:], "big")


def node(name: str) -> bytes:
    """A running node."""
    return b"n/" + name.encode()


def heard_of(name: str) -> bytes:
    """When a node last heard executors, all parts."""
    return HEARD + name.encode() + b"/"


def heard_part(name: str, part: int) -> bytes:
    """When a node last heard executors, in parts."""
    return heard_of(name) + part.to_bytes(2, "big")


def remains(tag: bytes) -> bytes:
    """A removed colony whose keys are not all deleted."""
    return REMAINS + tag


def parse_pid(text: str) -> bytes | None:
    """A process id as it is on the wire; None for what is no id."""
    return bytes.fromhex(text) if is_id(text) else None
