"""What this node believes of crons: all of them, by id, and their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from colonist_core.cron import Interval, Schedule, Timetable
from colonist_core.cron_expression import Every, parse
from colonist_protocol.cron import OFF
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import SECOND_NS
from colonist_protocol.workflow import WorkflowSpec
from colonist_server.repo import keys
from colonist_server.repo.definitions import spec_of
from colonist_server.repo.nouns import Colony
from colonist_server.repo.records import CronRecord, decode_cron
from colonist_server.repo.view import View
from colonist_server.store.interface import Revision


class Cron:
    """One cron. What its texts say is read once. `lock`: one run is started at a time here.

    `is_resting`: its turn came while its creator may not work, and it is looked at when that may.
    """

    __slots__ = (
        "_schedule",
        "_spec",
        "cid",
        "colony",
        "is_gone",
        "is_resting",
        "lock",
        "record",
        "revision",
    )

    def __init__(self, cid: bytes, colony: Colony, record: CronRecord, revision: Revision) -> None:
        self.cid = cid
        self.colony = colony
        self.record = record
        self.revision = revision
        self.is_gone = False
        self.is_resting = False
        self.lock = asyncio.Lock()
        self._schedule: Schedule | None = None
        self._spec: WorkflowSpec | None = None

    @property
    def id(self) -> str:
        """The id on the wire."""
        return self.cid.hex()

    @property
    def key(self) -> bytes:
        """Where it is stored."""
        return keys.cron(self.cid)

    @property
    def is_at_work(self) -> bool:
        """Whether it is there, with its colony, and not disabled."""
        return not (self.is_gone or self.colony.is_gone or self.record.disabled)

    @property
    def schedule(self) -> Schedule:
        """When it runs. Raises `InvalidValueError` where this node does not know its zone."""
        if self._schedule is None:
            record = self.record
            self._schedule = schedule_of(
                record.interval_s, record.expression, is_random=record.is_random
            )
        return self._schedule

    @property
    def spec(self) -> WorkflowSpec:
        """What it starts. Raises `MalformedError`."""
        if self._spec is None:
            self._spec = spec_of(self.record.spec, self.colony)
        return self._spec


class CronView:
    """All crons, oldest first in each colony."""

    __slots__ = ("_changed", "_view", "all", "by_tag", "names")

    def __init__(self, view: View) -> None:
        self._view = view
        self.all: dict[bytes, Cron] = {}
        self.by_tag: dict[bytes, dict[bytes, Cron]] = {}
        self.names: dict[bytes, Revision] = {}
        self._changed: Callable[[Cron], None] = _nobody
        view.hold(keys.CRON, self._apply, lambda: {keys.cron(cid) for cid in self.all})
        view.hold(keys.CRON_NAME, self._apply_name, lambda: set(self.names))

    def listen(self, changed: Callable[[Cron], None]) -> None:
        """Tell somebody of every cron that was written, in the middle of the change."""
        self._changed = changed

    def of(self, tag: bytes) -> list[Cron]:
        """The crons of a colony, oldest first."""
        return sorted(self.by_tag.get(tag, {}).values(), key=lambda cron: cron.cid)

    def _apply(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        cid = key[len(keys.CRON) :]
        cron = self.all.get(cid)
        if cron is not None and cron.revision >= revision:
            return
        if value is None:
            if cron is not None:
                self._drop(cron)
            return
        record = decode_cron(value)
        if cron is not None:
            cron.record, cron.revision = record, revision
        else:
            colony = self._view.tags.get(cid[: keys.TAG_BYTES])
            if colony is None:
                return  # removed: it is swept
            cron = Cron(cid, colony, record, revision)
            self.all[cid] = self.by_tag.setdefault(colony.tag, {})[cid] = cron
        self._changed(cron)

    def _drop(self, cron: Cron) -> None:
        cron.is_gone = True
        del self.all[cron.cid]
        siblings = self.by_tag[cron.colony.tag]
        del siblings[cron.cid]
        if not siblings:
            del self.by_tag[cron.colony.tag]

    def _apply_name(self, key: bytes, value: bytes | None, revision: Revision) -> None:
        if self.names.get(key, 0) >= revision:
            return
        if value is None:
            self.names.pop(key, None)
        else:
            self.names[key] = revision


def in_use(view: View, crons: CronView) -> set[bytes]:
    """The workflows whose results a run reads, or the next one will."""
    found = {workflow.record.previous for workflow in view.workflows.values()}
    for cron in crons.all.values():
        found.add(cron.record.previous)
        if cron.record.pending is not None:
            found |= {cron.record.pending.wid, cron.record.pending.previous}
    return found


def schedule_of(interval_s: int, expression: str, *, is_random: bool) -> Schedule:
    """When a cron runs; an interval wins over the expression. Raises `InvalidValueError`."""
    if interval_s != OFF:
        return Interval(interval_s * SECOND_NS, is_random)
    found = parse(expression)
    if isinstance(found, Every):
        return Interval(found.seconds * SECOND_NS)
    return Timetable(found, _zone(found.zone) if found.zone else UTC)


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a folder of zones is an OSError
        raise InvalidValueError(f"cron expression: there is no time zone {name[:64]!a}") from None


def _nobody(cron: Cron) -> None:
    """Nobody is to be told yet."""
