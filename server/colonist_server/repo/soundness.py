"""Whether a stored record can be what its key says, and keys as people read and type them.

What decodes may still be wrong; what does not decode is certainly so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from colonist_protocol.errors import CorruptRecordError
from colonist_protocol.process import State
from colonist_server.repo import keys, records
from colonist_server.repo.records import WorkflowState

_TAG: Final = keys.TAG_BYTES
_ID: Final = 32
_PID: Final = keys.PID_BYTES
_WID: Final = keys.WID_BYTES
_ENDED_PROCESS: Final = _TAG + 2 + 8 + _PID
_ENDED_WORKFLOW: Final = _TAG + 2 + 8 + _WID

Decode = Callable[[bytes], object]


class _Form(NamedTuple):
    """How long what follows the prefix is, 0: a name; and what the value is."""

    size: int
    decode: Decode


def _anything(value: bytes) -> object:
    return value


def _live(value: bytes) -> object:
    state = records.decode_live(value).state
    if state not in (State.WAITING, State.RUNNING):
        raise ValueError(f"a live process in state {state}")
    return state


def _closed(value: bytes) -> object:
    return State(records.decode_closed(value).live.state)


def _workflow(value: bytes) -> object:
    return WorkflowState(records.decode_workflow(value).state)


def _executor(value: bytes) -> object:
    return State(records.decode_executor(value).state)  # of as many states


def _sized(size: int) -> Decode:
    def decode(value: bytes) -> object:
        if len(value) != size:
            raise ValueError(f"{len(value)} bytes instead of {size}")
        return value

    return decode


_FORMS: Final[dict[bytes, _Form]] = {
    keys.COLONY: _Form(_TAG, records.decode_colony),
    keys.EXECUTOR: _Form(0, _executor),
    keys.USER: _Form(0, records.decode_user),
    keys.FUNCTION: _Form(0, records.decode_function),
    keys.CLAIM: _Form(_TAG + _ID, records.decode_claim),
    keys.GONE: _Form(_TAG + _ID, _sized(0)),
    keys.BIRTH: _Form(_PID, records.decode_birth),
    keys.LIVE: _Form(_PID, _live),
    keys.CLOSED: _Form(_PID, _closed),
    keys.OUTPUT: _Form(_PID, _anything),
    keys.EVENTS: _Form(_PID + 4, _anything),
    keys.WORKFLOW: _Form(_WID, _workflow),
    keys.SHAPE: _Form(_WID + 4, records.decode_shape),
    keys.EDIT: _Form(_WID + 4, records.decode_edit),
    keys.REQUEST: _Form(_WID + 2, _anything),
    keys.GENERATOR: _Form(_PID, records.decode_generator),
    keys.GENERATOR_NAME: _Form(0, _sized(_PID)),
    keys.FIRINGS: _Form(_PID, records.decode_firings),
    keys.ARGUMENT: _Form(_PID + 16, _anything),
    keys.FIRING: _Form(_PID + 8, records.decode_firing),
    keys.CRON: _Form(_PID, records.decode_cron),
    keys.CRON_NAME: _Form(0, _sized(_PID)),
    keys.ATTRIBUTE: _Form(_PID + keys.ATTRIBUTE_BYTES, records.decode_attribute),
    b"ai/": _Form(keys.ATTRIBUTE_BYTES, _sized(_PID)),
    keys.LOG: _Form(_PID + 12, records.decode_log),
    keys.RESULT: _Form(_PID + 4 + 8, records.decode_result),
    keys.MARK: _Form(_PID + 4 + 4, _anything),
    keys.HEARD: _Form(0, records.decode_heard),
    keys.CHANGES: _Form(_TAG + 1 + 16, records.decode_change),
    keys.SEALED: _Form(4 + 32 + 4, _anything),
    keys.PAST: _Form(_TAG, records.decode_past),
    keys.TRAIL: _Form(_TAG, records.decode_trail),
    keys.CHECKPOINT: _Form(_TAG + 8, records.decode_checkpoint),
    keys.NEWEST_CHECKPOINT: _Form(_TAG, records.decode_newest),
    keys.REMOVED: _Form(_PID, records.decode_removed),
    b"cn/": _Form(0, _sized(_TAG)),
    b"i/": _Form(0, _anything),
    b"m/": _Form(0, _anything),
    b"n/": _Form(0, _anything),
}


def fault(key: bytes, value: bytes) -> str:
    """Why this cannot be what its key says; "" when it can."""
    prefix = prefix_of(key)
    try:
        if key == keys.OWNER:
            records.decode_owner(value)
        elif prefix == keys.ENDED:
            _check_ended(key, value)
        else:
            _check(key, value, _FORMS.get(prefix), prefix)
    except (CorruptRecordError, ValueError) as error:
        return f"not readable: {error}"
    return ""


def prefix_of(key: bytes) -> bytes:
    """What a key begins with, up to its first slash."""
    return key[: key.find(b"/") + 1]


def _check(key: bytes, value: bytes, form: _Form | None, prefix: bytes) -> None:
    if form is None:
        if key == keys.EPOCH:
            records.decode_epoch(value)
        elif key != keys.LEADER:
            raise ValueError("no key of this version begins so")
        return
    if form.size and len(key) != len(prefix) + form.size:
        raise ValueError("the key is not as long as keys of its kind are")
    if prefix in (keys.EXECUTOR, keys.USER):
        key[len(prefix) + _TAG + 1 :].decode()
    form.decode(value)


def _check_ended(key: bytes, value: bytes) -> None:
    size = len(key) - len(keys.ENDED)
    if size not in (_ENDED_PROCESS, _ENDED_WORKFLOW):
        raise ValueError("the key is not as long as keys of its kind are")
    State(keys.state_of_ended(key))
    if keys.kind_of_ended(key) == keys.KIND_PROCESS:
        records.decode_ended(value)


_NAMED: Final = (keys.EXECUTOR, keys.USER, keys.FUNCTION, keys.GENERATOR_NAME, keys.CRON_NAME)
_TEXTS: Final = (b"cn/", b"m/", b"n/", keys.HEARD, keys.LEADER)


def key_text(key: bytes) -> str:
    """A key as people read it: `s/` and hex, `x/`, tag and name; `key_of` reads it again."""
    prefix = prefix_of(key)
    rest = key[len(prefix) :]
    if key.startswith(_TEXTS):
        return quote_from_bytes(key, safe="/")
    if prefix in _NAMED and rest[_TAG : _TAG + 1] == b"/":
        return f"{prefix.decode()}{rest[:_TAG].hex()}/{quote_from_bytes(rest[_TAG + 1 :], safe='')}"
    if prefix in _FORMS or prefix == keys.ENDED:
        return f"{prefix.decode()}{rest.hex()}"
    return f"raw:{key.hex()}"


def key_of(text: str) -> bytes:
    """The key that a text stands for. Raises `ValueError`."""
    if text.startswith("raw:"):
        return bytes.fromhex(text[4:])
    if text.encode().startswith(_TEXTS):
        return unquote_to_bytes(text)
    head, _, rest = text.partition("/")
    prefix = head.encode() + b"/"
    if prefix in _NAMED and "/" in rest:
        tag, _, name = rest.partition("/")
        return prefix + bytes.fromhex(tag) + b"/" + unquote_to_bytes(name)
    return prefix + bytes.fromhex(rest)
