"""Every key of the store, and nothing else builds one. Binary; key order is list order.

| key | value |
|---|---|
| `c/tag`, `cn/name` | colony; name -> tag |
| `i/id/tag` | identity -> what it is there |
| `ir/tag/id` | that an id was a member's, and is nobody's any more |
| `cl/tag/claim` | claim: who may enrol by it |
| `x/tag/name`, `u/tag/name`, `f/tag/name/func` | executor, user, function |
| `p/pid`, `s/pid`, `z/pid` | birth (never rewritten), live part, closed part of a process |
| `y/tag/kind,state,~ended/pid` | closed processes, newest first, with what lists filter by |
| `e/pid/n` | older events of a process, from number n on |
| `w/wid` | workflow: its state, size and number of edits |
| `wg/wid/first`, `we/wid/n` | who waits for whom, as submitted; edits, in order |
| `wq/wid/part` | the request that submitted it |
| `g/gid`, `gi/tag/name` | generator; its id by name |
| `gn/gid`, `ga/gid/arg`, `gf/gid/n` | firings so far; packed argument; a firing under way |
| `k/cid`, `kn/tag/name` | cron, with its next and last run; its id by name |
| `o/pid`, `a/pid/attr`, `ai/attr`, `l/pid/attempt,time` | output, attribute, its index, log line |
| `r/pid/attempt,nonce` | a result of an attempt that is evidence only |
| `rl/pid/attempt,seq` | that a log line was put; until the process ends |
| `n/node`, `nl` | a running node; the one that leads: both go with their leases |
| `nh/node/part` | when a node last heard executors |
| `h/tag/~time,digest` | who changed what about members and owner, newest first |
| `hh/tag` | the head of the chain of those changes |
| `q/tag/k`, `qh/tag` | signed checkpoint of the heads of all chains; the newest of them |
| `er/pid` | what is left of a removed process: the end of its chain |
| `t/tag` | what the archive holds of a colony: counts, and what is on its way |
| `d/minute,D,index` | that a sealed request took effect, and what it made; until that minute |
| `me` | the count of minutes by which sealed requests age |
| `m/..` | schema, owner; remains of colonies to be swept; nodes that have not stopped in order |

A process id is `colony tag 4, birth minute 4, 20 bytes, member 4`: what belongs together is
contiguous, and a colony made anew meets nothing old. A generator's or cron's id begins with the tag
too: `colony tag 4, time 8, 20 bytes`.
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
_TIME_BYTES: Final = 8

COLONY: Final = b"c/"
EXECUTOR: Final = b"x/"
USER: Final = b"u/"
FUNCTION: Final = b"f/"
CLAIM: Final = b"cl/"
GONE: Final = b"ir/"
BIRTH: Final = b"p/"
LIVE: Final = b"s/"
CLOSED: Final = b"z/"
ENDED: Final = b"y/"
OUTPUT: Final = b"o/"
ATTRIBUTE: Final = b"a/"
LOG: Final = b"l/"
EVENTS: Final = b"e/"
RESULT: Final = b"r/"
MARK: Final = b"rl/"
PAST: Final = b"t/"
ATTRIBUTE_INDEX: Final = b"ai/"
NODE: Final = b"n/"
LEADER: Final = b"nl"
HEARD: Final = b"nh/"
WORKFLOW: Final = b"w/"
SHAPE: Final = b"wg/"
EDIT: Final = b"we/"
REQUEST: Final = b"wq/"
GENERATOR: Final = b"g/"
GENERATOR_NAME: Final = b"gi/"
FIRINGS: Final = b"gn/"
ARGUMENT: Final = b"ga/"
FIRING: Final = b"gf/"
CRON: Final = b"k/"
CRON_NAME: Final = b"kn/"
CHANGES: Final = b"h/"
TRAIL: Final = b"hh/"
CHECKPOINT: Final = b"q/"
NEWEST_CHECKPOINT: Final = b"qh/"
REMOVED: Final = b"er/"
OWNER: Final = b"m/owner"
EPOCH: Final = b"me"
SEALED: Final = b"d/"
REMAINS: Final = b"m/remains/"
SCHEMA: Final = b"m/schema"
ARCHIVE: Final = b"m/archive"
"""The identity of the archive that holds this store's history."""
RUNNING: Final = b"m/running/"
RESTORING: Final = b"m/restoring"
"""Stands from the first to the last commit of a restore: what is stored is not whole."""

BY_TAG: Final = (
    WORKFLOW,  # before all that is only written while its head stands
    EXECUTOR,
    USER,
    CLAIM,
    GONE,
    FUNCTION,
    LIVE,
    BIRTH,
    CLOSED,
    ENDED,
    OUTPUT,
    ATTRIBUTE,
    LOG,
    EVENTS,
    RESULT,
    MARK,
    CHANGES,
    TRAIL,
    CHECKPOINT,
    NEWEST_CHECKPOINT,
    REMOVED,
    SHAPE,
    EDIT,
    REQUEST,
    GENERATOR,  # before all that is only written while it stands
    GENERATOR_NAME,
    FIRINGS,
    ARGUMENT,
    FIRING,
    CRON,
    CRON_NAME,
    PAST,
)

_MAX_FUNCTION_BYTES: Final = 128
_HASHED: Final = b"\x01"
"""No name begins so: control characters are refused."""
KIND_PROCESS: Final = 0
KIND_WORKFLOW: Final = 1
_END_OF_TIME: Final = 2**64 - 1
_MAX_MINUTE: Final = 2**32 - 1
_NO_MINUTE: Final = b"\xff\xff\xff\xff"
_LONE: Final = bytes(4)
_PART_BYTES: Final = 3
"""A slash and the number of a part."""


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


def claim(tag: bytes, id: str) -> bytes:
    """A claim, by its id."""
    return CLAIM + tag + bytes.fromhex(id)


def gone(tag: bytes, id: str) -> bytes:
    """That an id was a member's, and is nobody's any more."""
    return GONE + tag + bytes.fromhex(id)


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
    return ended_in(tag, state) + _newest_first(ended_ns) + pid


def ended_in(tag: bytes, state: int, kind: int = KIND_PROCESS) -> bytes:
    """All closed processes, or workflows, in a state."""
    return ENDED + tag + bytes((kind, state))


def ended_workflow(tag: bytes, state: int, submitted_ns: int, wid: bytes) -> bytes:
    """A workflow that has ended in the list of its state, newest submission first."""
    return ended_in(tag, state, KIND_WORKFLOW) + _newest_first(submitted_ns) + wid


def _newest_first(time_ns: int) -> bytes:
    return (_END_OF_TIME - time_ns).to_bytes(8, "big")


def kind_of_ended(key: bytes) -> int:
    """Whether a key lists a process or a workflow."""
    return key[len(ENDED) + TAG_BYTES]


def state_of_ended(key: bytes) -> int:
    """The state in a key that `ended` or `ended_workflow` made."""
    return key[len(ENDED) + TAG_BYTES + 1]


def time_of_ended(key: bytes) -> int:
    """The time in such a key."""
    start = len(ENDED) + TAG_BYTES + 2
    return _END_OF_TIME - int.from_bytes(key[start : start + 8], "big")


def output(pid: bytes) -> bytes:
    """The output that a process was given while it ran."""
    return OUTPUT + pid


def events_of(pid: bytes) -> bytes:
    """All events that moved out of a process's record."""
    return EVENTS + pid


def events(pid: bytes, number: int) -> bytes:
    """Events from this number on."""
    return events_of(pid) + number.to_bytes(4, "big")


def number_of_events(key: bytes) -> int:
    """The first number in a key that `events` made."""
    return int.from_bytes(key[-4:], "big")


def attributes(pid: bytes) -> bytes:
    """All attributes of a process."""
    return ATTRIBUTE + pid


def attribute(pid: bytes, id: str) -> bytes:
    """One attribute."""
    return ATTRIBUTE + pid + bytes.fromhex(id)


def attribute_index(id: str) -> bytes:
    """Which process an attribute belongs to."""
    return ATTRIBUTE_INDEX + bytes.fromhex(id)


def logs(pid: bytes, attempt: int | None = None) -> bytes:
    """All lines of a process, or of one attempt."""
    return LOG + pid + (attempt.to_bytes(4, "big") if attempt is not None else b"")


def log(pid: bytes, attempt: int, time_ns: int) -> bytes:
    """One line."""
    return logs(pid, attempt) + time_ns.to_bytes(8, "big")


def results_of(pid: bytes) -> bytes:
    """All results of a process that are evidence only."""
    return RESULT + pid


def results_by(pid: bytes, number: int) -> bytes:
    """The results of attempts of that number that are evidence only: one, but for restores."""
    return results_of(pid) + number.to_bytes(4, "big")


def result(pid: bytes, number: int, nonce: bytes) -> bytes:
    """The result of one attempt that is evidence only."""
    return results_by(pid, number) + nonce


def pid_of_result(key: bytes) -> bytes:
    """The process in a key that `result` made."""
    return key[len(RESULT) : len(RESULT) + PID_BYTES]


def marks_of(pid: bytes) -> bytes:
    """The marks of all log lines that attempts have put."""
    return MARK + pid


def mark(pid: bytes, number: int, seq: int) -> bytes:
    """That an attempt has put the log line of that number."""
    return marks_of(pid) + number.to_bytes(4, "big") + seq.to_bytes(4, "big")


def after_logs(pid: bytes) -> bytes:
    """A key behind all lines of a process."""
    return LOG + pid + b"\xff" * 13


def pid_of_log(key: bytes) -> bytes:
    """The process, or executor's log, in a key that `log` made."""
    return key[len(LOG) : len(LOG) + PID_BYTES]


def executor_logs(tag: bytes) -> bytes:
    """All lines of all executors' own logs."""
    return LOG + tag + _NO_MINUTE


def time_of_log(key: bytes) -> int:
    """The time in a key that `log` made, in ns."""
    return int.from_bytes(key[-8:], "big")


def born_ns(pid: bytes) -> int:
    """The minute in which a process was submitted, in ns since 1970."""
    return int.from_bytes(pid[TAG_BYTES : TAG_BYTES + 4], "big") * MINUTE_NS


def executor_pid(tag: bytes, digest: bytes) -> bytes:
    """The id under which an executor's own log is kept; no process has it."""
    return tag + _NO_MINUTE + digest[:RANDOM_BYTES] + _LONE


def is_executor_pid(pid: bytes) -> bool:
    """Whether `executor_pid` made this."""
    return pid[TAG_BYTES : TAG_BYTES + 4] == _NO_MINUTE


def process_id(tag: bytes, now_ns: int, random: bytes) -> bytes:
    """The id of a process that belongs to no workflow."""
    return tag + (now_ns // MINUTE_NS).to_bytes(4, "big") + random + _LONE


def workflow(wid: bytes) -> bytes:
    """A workflow's head."""
    return WORKFLOW + wid


def shape_of(wid: bytes) -> bytes:
    """Who waits for whom, all parts."""
    return SHAPE + wid


def shape(wid: bytes, first: int) -> bytes:
    """Who waits for whom, of the members from number `first` on."""
    return shape_of(wid) + first.to_bytes(4, "big")


def edits_of(wid: bytes) -> bytes:
    """All edits of a workflow."""
    return EDIT + wid


def edit(wid: bytes, number: int) -> bytes:
    """One edit, numbered from 0."""
    return edits_of(wid) + number.to_bytes(4, "big")


def request_of(wid: bytes) -> bytes:
    """The request that submitted a workflow, all parts."""
    return REQUEST + wid


def request(wid: bytes, part: int) -> bytes:
    """The request that submitted a workflow, one part."""
    return request_of(wid) + part.to_bytes(2, "big")


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


def definition_id(tag: bytes, now_ns: int, random: bytes) -> bytes:
    """The id of a generator or a cron; one that is made later sorts behind."""
    return tag + now_ns.to_bytes(8, "big") + random[:RANDOM_BYTES]


def generator(gid: bytes) -> bytes:
    """What a generator is."""
    return GENERATOR + gid


def generator_name(tag: bytes, name: str) -> bytes:
    """The id of the generator of that name."""
    return GENERATOR_NAME + tag + b"/" + name.encode()


def firings(gid: bytes) -> bytes:
    """How often a generator has fired."""
    return FIRINGS + gid


def arguments(gid: bytes) -> bytes:
    """All arguments that wait at a generator."""
    return ARGUMENT + gid


def argument(gid: bytes, suffix: bytes) -> bytes:
    """One argument; the suffix is what `argument_suffix` made."""
    return ARGUMENT + gid + suffix


def argument_suffix(now_ns: int, random: bytes) -> bytes:
    """What tells a generator's arguments apart: when it was packed, and 8 bytes."""
    return now_ns.to_bytes(8, "big") + random


def time_of_argument(suffix: bytes) -> int:
    """When an argument was packed, in ns."""
    return int.from_bytes(suffix[:8], "big")


def firing(gid: bytes, number: int) -> bytes:
    """One firing that takes several commits."""
    return FIRING + gid + number.to_bytes(8, "big")


def run_id(cid: bytes, turn: int, planned_ns: int) -> bytes:
    """The id of the workflow that a cron starts at its turn of that number: always the same.

    Runs of a minute stand in the order of their crons: what one commit starts lies close together.
    """
    made = cid[TAG_BYTES : TAG_BYTES + _TIME_BYTES]
    mark = turn.to_bytes(8, "big") + planned_ns.to_bytes(8, "big")
    return workflow_id(cid[:TAG_BYTES], planned_ns, made + hashlib.sha3_256(cid + mark).digest())


def cron(cid: bytes) -> bytes:
    """A cron."""
    return CRON + cid


def cron_name(tag: bytes, name: str) -> bytes:
    """The id of the cron of that name."""
    return CRON_NAME + tag + b"/" + name.encode()


def changes(tag: bytes) -> bytes:
    """All changes of a colony's members and owner."""
    return CHANGES + tag + b"/"


def change(tag: bytes, time_ns: int, digest: bytes) -> bytes:
    """One change, newest first."""
    return changes(tag) + (_END_OF_TIME - time_ns).to_bytes(8, "big") + digest[:8]


def changes_before(tag: bytes, time_ns: int) -> bytes:
    """A key behind all changes of that time and later, before all earlier ones."""
    return change(tag, time_ns, b"\xff" * 8) + b"\xff"


def time_of_change(key: bytes) -> int:
    """The time in a key that `change` made, in ns."""
    start = len(CHANGES) + TAG_BYTES + 1
    return _END_OF_TIME - int.from_bytes(key[start : start + 8], "big")


def trail(tag: bytes) -> bytes:
    """The head of the chain of a colony's own changes."""
    return TRAIL + tag


def checkpoints(tag: bytes) -> bytes:
    """All checkpoints of a colony, in order."""
    return CHECKPOINT + tag


def checkpoint(tag: bytes, k: int) -> bytes:
    """One checkpoint."""
    return checkpoints(tag) + k.to_bytes(8, "big")


def number_of_checkpoint(key: bytes) -> int:
    """The number in a key that `checkpoint` made."""
    return int.from_bytes(key[len(CHECKPOINT) + TAG_BYTES :], "big")


def newest_checkpoint(tag: bytes) -> bytes:
    """Which checkpoint of a colony is the newest."""
    return NEWEST_CHECKPOINT + tag


def removed(pid: bytes) -> bytes:
    """What is left of a removed process."""
    return REMOVED + pid


def node(name: str) -> bytes:
    """A running node."""
    return NODE + name.encode()


def running(name: str) -> bytes:
    """A mark that stands from a node's start to its end in order."""
    return RUNNING + name.encode()


def name_of_node(key: bytes) -> str:
    """The name in a key that `node` made."""
    return key[len(NODE) :].decode(errors="replace")


def heard_of(name: str) -> bytes:
    """When a node last heard executors, all parts."""
    return HEARD + name.encode() + b"/"


def heard_part(name: str, part: int) -> bytes:
    """When a node last heard executors, in parts."""
    return heard_of(name) + part.to_bytes(2, "big")


def name_of_heard(key: bytes) -> str:
    """The node in a key that `heard_part` made."""
    return key[len(HEARD) : -_PART_BYTES].decode(errors="replace")


def sealed(end: int, digest: bytes, index: int) -> bytes:
    """The record of a sealed request, which may go after the minute `end`."""
    return sealed_until(end) + digest + index.to_bytes(4, "big")


def sealed_until(end: int) -> bytes:
    """All records of sealed requests that may go after the minute `end`."""
    return SEALED + min(end, _MAX_MINUTE).to_bytes(4, "big")


def minute_of_sealed(key: bytes) -> int:
    """The minute in a key that `sealed` made."""
    return int.from_bytes(key[len(SEALED) : len(SEALED) + 4], "big")


def past(tag: bytes) -> bytes:
    """What the archive holds of a colony."""
    return PAST + tag


def remains(tag: bytes) -> bytes:
    """A removed colony whose keys are not all deleted."""
    return REMAINS + tag


def parse_pid(text: str) -> bytes | None:
    """A process id as it is on the wire; None for what is no id."""
    return bytes.fromhex(text) if is_id(text) else None
