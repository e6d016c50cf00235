"""The one write path: read with revisions, decide, commit under guards, on a lost race again.

Nobody writes to the store in another way. A commit is applied to the view as soon as it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from colonist_protocol.errors import ContendedError, TooLargeError, UnavailableError
from colonist_server.archive.interface import Archive
from colonist_server.repo import effects, once
from colonist_server.repo.keys import WORKFLOW, edits_of
from colonist_server.repo.once import Once
from colonist_server.repo.past import Past
from colonist_server.repo.records import decode_workflow
from colonist_server.repo.view import View
from colonist_server.store.interface import (
    Guard,
    Item,
    Op,
    Range,
    Revision,
    Store,
    StoreError,
    TooBigError,
)

ATTEMPTS: Final = 8


class Plan(NamedTuple):
    """What to write, and on what condition."""

    guards: Sequence[Guard]
    ops: Sequence[Op]


class Writes:
    """Commits to the store on behalf of this node."""

    __slots__ = ("n", "past", "store", "view")

    def __init__(self, store: Store, view: View, archive: Archive | None = None) -> None:
        self.store = store
        self.view = view
        self.past = Past(self, view, archive)
        """What has ended, also in the archive."""
        self.n = 0
        """The server's minute, as far as this node knows (`epochs`)."""

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        """Commit once: the revision, or None when a guard failed.

        Raises `UnavailableError`, and `TooLargeError` for what can never be committed.

        Cancelling the caller does not cancel the commit; the watch then brings it to the view.

        Of a sealed request it also raises what `refresh` does. That the minute has moved on is no
        lost race to whoever decides: what is joined here is brought up to date here.
        """
        bound = once.current()
        if bound is None:
            return await self._commit(guards, ops)
        for _ in range(ATTEMPTS):
            if bound.must_look:
                await self.look_back(bound)
            revision = await self._commit(*bound.join(guards, ops))
            if revision is not None:
                bound.committed()
                return revision
            before = bound.own_guards
            with suppress(UnavailableError):  # it is lost: an outage now makes nobody unsure
                await self.refresh([])
            if bound.own_guards == before:
                break
        return None

    async def finish(self, bound: Once) -> None:
        """Leave the record of a sealed request that is done and has left none.

        One that had nothing to change has had its effect too: presented again, when there is
        something, it must not change that.
        """
        bound.begin_last()
        if not bound.is_spent and await self.commit([], []) is None:
            raise ContendedError("the minute moved on too often")

    async def _commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        try:
            revision = await self.store.commit(guards, ops)
        except TooBigError as error:
            raise TooLargeError(f"more than one commit can hold: {error}") from error
        except StoreError as error:
            effects.happened()
            raise UnavailableError(f"the store cannot write now: {error}") from error
        if revision is not None:
            effects.happened()
            self.view.committed(revision, ops)
        return revision

    async def apply(self, decide: Callable[[], Plan]) -> Revision:
        """Decide on the view and commit, until a commit is not raced. What it raises passes.

        Raises `ContendedError` after `ATTEMPTS` lost races.
        """
        for _ in range(ATTEMPTS):
            plan = decide()
            revision = await self.commit(plan.guards, plan.ops)
            if revision is not None:
                return revision
            await self.refresh([guard.key for guard in plan.guards])
        raise ContendedError(f"{ATTEMPTS} others changed the same object at once")

    async def refresh(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Bring the view up to the store for some keys.

        Raises `UnavailableError`; for a sealed request also `AlreadyDone`, `EpochStaleError` and
        `AccessError`: whoever has lost a race comes by here before the next try.
        """
        bound = once.current()
        own = [key for key in bound.read_again() if key not in keys] if bound is not None else []
        items = await self._refresh([*keys, *own])
        if bound is not None:
            bound.look(dict(zip((*keys, *own), items, strict=True)))
            await self._look_far(bound)
            bound.check_on()
        return items[: len(keys)]

    async def look_back(self, bound: Once) -> None:
        """Raise `AlreadyDone` for a sealed request that took effect, and `UnavailableError`."""
        own = bound.read_again()
        bound.look(dict(zip(own, await self._refresh(own), strict=True)))
        await self._look_far(bound)

    async def _look_far(self, bound: Once) -> None:
        """Look in the archive too for what a sealed request may have made long ago."""
        if bound.derived is not None and bound.must_look:
            bound.look({bound.derived.key: await self.past.read(bound.derived.key)})
            bound.has_looked_far = True

    async def _refresh(self, keys: Sequence[bytes]) -> list[Item | None]:
        before = self.store.revision  # of an absent key only this is sure: it was so after here
        items = await self.read_many(keys)
        gone = dict.fromkeys(
            (key for key, item in zip(keys, items, strict=True) if item is None), before
        )
        if self.store.is_shared:
            gone = {key: await self._gone_at(key) for key in gone}
        edits = await self._edits([item for item in items if item is not None])
        for key, item in zip(keys, items, strict=True):
            if item is not None:
                self.view.apply(key, item.value, item.modified)
            else:
                self.view.apply(key, None, gone[key])
        for edit in edits:
            self.view.apply(edit.key, edit.value, edit.modified)
        return items

    async def _gone_at(self, key: bytes) -> Revision:
        """A revision at which a key was absent; 0 where it is back.

        Another node may have deleted it later than all that was heard of here, and whoever decides
        on the view must not find it again. A range says of when it is.
        """
        page = await self.range(key, limit=1, keys_only=True)
        is_back = bool(page.items) and page.items[0].key == key
        return 0 if is_back else page.revision

    async def _edits(self, items: Sequence[Item]) -> list[Item]:
        """What belongs to heads of workflows that were edited since this node heard of them.

        Nobody may decide on a new head and an old graph: both are applied without an await between.
        """
        found: list[Item] = []
        for item in items:
            workflow = self.view.workflows.get(item.key[len(WORKFLOW) :])
            if workflow is None or workflow.key != item.key:
                continue
            if decode_workflow(item.value).edits > workflow.edits:
                found += (await self.range(edits_of(workflow.wid))).items
        return found

    async def newest(self) -> Revision:
        """The newest revision of the store, as `Store.newest` has it. Raises `UnavailableError`."""
        try:
            return await self.store.newest()
        except StoreError as error:
            raise UnavailableError(f"the store cannot read now: {error}") from error

    async def read(self, key: bytes) -> Item | None:
        """One key as it is stored. Raises `UnavailableError`."""
        return (await self.read_many([key]))[0]

    async def read_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys as of one revision. Raises `UnavailableError`."""
        try:
            return await self.store.get_many(keys)
        except StoreError as error:
            raise UnavailableError(f"the store cannot read now: {error}") from error

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes = b"",
        limit: int = 0,
        since: Revision = 0,
        reverse: bool = False,
        keys_only: bool = False,
    ) -> Range:
        """Keys with a prefix, as `Store.range` has them. Raises `UnavailableError`."""
        try:
            return await self.store.range(
                prefix, after=after, limit=limit, since=since, reverse=reverse, keys_only=keys_only
            )
        except StoreError as error:
            raise UnavailableError(f"the store cannot read now: {error}") from error
