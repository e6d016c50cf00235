"""etcd's messages: requests as bytes, answers as ours. Generated stubs are known here only.

Fields of a protobuf message that repeat may be cut apart and joined in any order, so a commit is
encoded once, as a fragment of a transaction, and a merged transaction is its fragments joined.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from colonist_server.store.etcd.frames import CallError, Code
from colonist_server.store.interface import (
    Change,
    Delete,
    Event,
    Guard,
    Item,
    Op,
    Put,
    Range,
    Revision,
)
from colonist_server.store.laws import prefix_end


def _stubs() -> Any:
    """The messages that `aetcd` ships, untyped; without its packages, which import all of grpc."""
    found = importlib.util.find_spec("aetcd")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'aetcd'", name="aetcd")
    package = ModuleType("_aetcd_messages")
    package.__path__ = [str(Path(found.submodule_search_locations[0]) / "rpc")]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.rpc_pb2")


_rpc: Final[Any] = _stubs()

Parse = Any
"""Bytes to a message of the stubs."""


class Method(NamedTuple):
    """A call of etcd's API."""

    path: str
    parse: Parse

    def read(self, data: bytes) -> Any:
        """An answer. Raises `CallError` if it cannot be read."""
        try:
            return self.parse(data)
        except DecodeError as error:
            raise CallError(Code.INTERNAL, f"not what {self.path} answers: {error}") from error


def _method(service: str, name: str) -> Method:
    return Method(f"/etcdserverpb.{service}/{name}", getattr(_rpc, f"{name}Response").FromString)


RANGE: Final = _method("KV", "Range")
TXN: Final = _method("KV", "Txn")
DELETE: Final = _method("KV", "DeleteRange")
COMPACT: Final = Method("/etcdserverpb.KV/Compact", _rpc.CompactionResponse.FromString)
GRANT: Final = _method("Lease", "LeaseGrant")
REVOKE: Final = _method("Lease", "LeaseRevoke")
KEEP_ALIVE: Final = _method("Lease", "LeaseKeepAlive")
WATCH: Final = _method("Watch", "Watch")
AUTHENTICATE: Final = _method("Auth", "Authenticate")
STATUS: Final = _method("Maintenance", "Status")
ALARM: Final = _method("Maintenance", "Alarm")
MEMBERS: Final = _method("Cluster", "MemberList")

_EQUAL: Final = _rpc.Compare.EQUAL
_MOD: Final = _rpc.Compare.MOD
_DELETED: Final = 1


def fragment(prefix: bytes, guards: Sequence[Guard], ops: Sequence[Op]) -> bytes:
    """A commit as a part of a transaction; where it fails, the guarded keys are read."""
    request = _rpc.TxnRequest()
    compare, failure, success = request.compare, request.failure, request.success
    for key, revision in guards:
        key = prefix + key  # noqa: PLW2901 - only the whole key is meant from here on
        compare.add(result=_EQUAL, target=_MOD, key=key, mod_revision=revision)
        read = failure.add().request_range
        read.key = key
        read.keys_only = True
    for op in ops:
        if type(op) is Put:
            put = success.add().request_put
            put.key = prefix + op[0]
            put.value = op[1]
            if op[2]:
                put.lease = op[2]
        elif type(op) is Delete:
            success.add().request_delete_range.key = prefix + op[0]
        else:
            delete = success.add().request_delete_range
            delete.key = prefix + op[0]
            delete.range_end = prefix_end(prefix + op[0])
    return request.SerializeToString()


def fence(key: bytes, revision: Revision, mark: bytes) -> bytes:
    """The part of a transaction that lets it happen once only, and shows whether it has."""
    request = _rpc.TxnRequest()
    request.compare.add(result=_EQUAL, target=_MOD, key=key, mod_revision=revision)
    put = request.success.add().request_put
    put.key = key
    put.value = mark
    request.failure.add().request_range.key = key
    return request.SerializeToString()


class Found(NamedTuple):
    """A key as a failed transaction found it: revision 0 = absent."""

    revision: Revision
    value: bytes


class Answer(NamedTuple):
    """Of a transaction: whether it was done, and at which revision; else how its keys stand."""

    done: bool
    revision: Revision
    found: list[Found]


_ABSENT: Final = Found(0, b"")


def answer(response: Any) -> Answer:
    """The answer of a transaction made of fragments."""
    revision = response.header.revision
    if response.succeeded:
        return Answer(True, revision, [])
    found: list[Found] = []
    for each in response.responses:
        kvs = each.response_range.kvs
        found.append(Found(kvs[0].mod_revision, kvs[0].value) if kvs else _ABSENT)
    return Answer(False, revision, found)


def read_many(keys: Iterable[bytes], revision: Revision = 0) -> bytes:
    """A transaction that reads keys, at a revision (0: the newest)."""
    request = _rpc.TxnRequest()
    success = request.success
    for key in keys:
        read = success.add().request_range
        read.key = key
        if revision:
            read.revision = revision
    return request.SerializeToString()


def items_read(response: Any, cut: int) -> list[Item | None]:
    """What stands under the keys that were read; `cut` bytes of each key are not the caller's."""
    found: list[Item | None] = []
    for each in response.responses:
        kvs = each.response_range.kvs
        found.append(_item(kvs[0], cut) if kvs else None)
    return found


class Span(NamedTuple):
    """What to range over: whole keys from `low` up to and without `high`."""

    low: bytes
    high: bytes
    limit: int = 0
    since: Revision = 0
    reverse: bool = False
    keys_only: bool = False


def range_request(span: Span, revision: Revision = 0) -> bytes:
    """Read a range, at a revision (0: the newest)."""
    request = _rpc.RangeRequest(
        key=span.low,
        range_end=span.high,
        limit=span.limit,
        revision=revision,
        keys_only=span.keys_only,
        min_mod_revision=span.since + 1 if span.since else 0,
    )
    if span.reverse:
        request.sort_order = _rpc.RangeRequest.DESCEND
    return request.SerializeToString()


def count_request(key: bytes) -> bytes:
    """Ask for nothing but the newest revision, as all members agree on it."""
    return _rpc.RangeRequest(key=key, count_only=True).SerializeToString()


def page(response: Any, cut: int, *, leased: bool = True) -> Range:
    """The items of a range; without `leased`, only those that no lease holds."""
    items = [_item(kv, cut) for kv in response.kvs if leased or not kv.lease]
    return Range(response.header.revision, items, response.more)


def last_key(response: Any) -> bytes:
    """The last whole key of a range; b"" of an empty one."""
    return response.kvs[-1].key if response.kvs else b""


def _item(kv: Any, cut: int) -> Item:
    return Item(kv.key[cut:], kv.value, kv.create_revision, kv.mod_revision)


def watch_request(prefix: bytes, start: Revision) -> bytes:
    """Follow a prefix from a revision on."""
    request = _rpc.WatchRequest()
    request.create_request.key = prefix
    request.create_request.range_end = prefix_end(prefix)
    request.create_request.start_revision = start
    return request.SerializeToString()


def events(response: Any, prefix: bytes) -> list[Event]:
    """The revisions in an answer of a watch, in order and whole; other keys are left out."""
    found: list[Event] = []
    changes: list[Change] = []
    cut = len(prefix)
    current = 0
    for event in response.events:
        kv = event.kv
        if kv.mod_revision != current:
            if current:
                found.append(Event(current, tuple(changes)))
            current = kv.mod_revision
            changes = []
        key = kv.key
        if key.startswith(prefix):
            changes.append(Change(key[cut:], None if event.type == _DELETED else kv.value))
    if current:
        found.append(Event(current, tuple(changes)))
    return found


def put_request(key: bytes, value: bytes, lease: int) -> bytes:
    """Write a whole key without a guard."""
    request = _rpc.TxnRequest()
    put = request.success.add().request_put
    put.key, put.value, put.lease = key, value, lease
    return request.SerializeToString()


def delete_request(prefix: bytes) -> bytes:
    """Delete all under a prefix of whole keys."""
    return _rpc.DeleteRangeRequest(key=prefix, range_end=prefix_end(prefix)).SerializeToString()


def compact_request(revision: Revision) -> bytes:
    """Forget what was before a revision."""
    return _rpc.CompactionRequest(revision=revision).SerializeToString()


def grant_request(ttl_s: int) -> bytes:
    """Ask for a lease."""
    return _rpc.LeaseGrantRequest(TTL=ttl_s).SerializeToString()


def revoke_request(lease: int) -> bytes:
    """End a lease."""
    return _rpc.LeaseRevokeRequest(ID=lease).SerializeToString()


def keep_alive_request(lease: int) -> bytes:
    """Renew a lease."""
    return _rpc.LeaseKeepAliveRequest(ID=lease).SerializeToString()


def login_request(user: str, password: str) -> bytes:
    """Ask for a token."""
    return _rpc.AuthenticateRequest(name=user, password=password).SerializeToString()


def status_request() -> bytes:
    """Ask one member how it is."""
    return _rpc.StatusRequest().SerializeToString()


def members_request() -> bytes:
    """Ask who belongs to the cluster."""
    return _rpc.MemberListRequest().SerializeToString()


def alarms(response: Any) -> list[str]:
    """The alarms that are on, by name."""
    return sorted({_rpc.AlarmType.Name(alarm.alarm) for alarm in response.alarms})


def alarms_request() -> bytes:
    """Ask which alarms are on."""
    return _rpc.AlarmRequest(action=_rpc.AlarmRequest.GET).SerializeToString()
