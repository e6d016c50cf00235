"""Reads that wait share a transaction; a range comes in pages of one revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.client import Client, TroubleError
from colonist_server.store.etcd.wire import Span
from colonist_server.store.interface import (
    MAX_OPS,
    CompactedError,
    Item,
    Range,
    Revision,
    StoreError,
    UnavailableError,
)
from colonist_server.store.laws import prefix_end

PAGE: Final = 10_000
"""etcd counts all that remains for every page: 100 000 keys took 0.47 s, in pages of 1 000 1.49."""
RANGE_BYTES: Final = 16_777_216
FIRST_RANGE: Final = 64
SNAPSHOT_PAGE: Final = 1_000
SNAPSHOT_BYTES: Final = 4_194_304
FIRST_PAGE: Final = 16
"""How large values are is not known before some were read."""
MAX_TRIES: Final = 5

_Wanted = tuple[Sequence[bytes], asyncio.Future[list[Item | None]]]


class Reads:
    """Reads below a prefix."""

    def __init__(self, client: Client, prefix: bytes) -> None:
        self._client = client
        self._prefix = prefix
        self._waiting: list[_Wanted] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_reading = False

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        """Several keys as of one revision."""
        if len(keys) > MAX_OPS:
            return await self._get_lot(keys)
        answer: asyncio.Future[list[Item | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((keys, answer))
        if not self._is_reading:
            self._start()
        return await answer

    async def range(
        self,
        prefix: bytes,
        *,
        after: bytes,
        limit: int,
        since: Revision,
        reverse: bool,
        keys_only: bool,
    ) -> Range:
        """As the store interface has it."""
        low = self._prefix + prefix
        span = Span(low, prefix_end(low), limit, since, reverse, keys_only)
        if after:
            span = _past(span, self._prefix + after)
        if span.low >= span.high:
            return Range(await self.revision(), [], more=False)
        for _ in range(MAX_TRIES):
            try:
                return await self._pages(span)
            except CompactedError:  # it took longer than history is kept
                continue
        raise UnavailableError("a range was not read before its revision was compacted")

    async def revision(self) -> Revision:
        """The newest revision, not older than any that was answered before."""
        response = await self._client.ask(wire.RANGE, wire.count_request(self._prefix))
        return response.header.revision

    async def snapshot(self, revision: Revision) -> AsyncGenerator[Range]:
        """All keys that no lease holds, at a revision."""
        span = Span(self._prefix, prefix_end(self._prefix), FIRST_PAGE)
        more = True
        while more:
            response = await self._client.ask(wire.RANGE, wire.range_request(span, revision))
            page = wire.page(response, len(self._prefix), leased=False)
            more = page.more
            for items, is_last in _portions(page.items):
                yield Range(revision, items, more or not is_last)
            if more:
                limit = _fitting(page.items, len(response.kvs), SNAPSHOT_BYTES, SNAPSHOT_PAGE)
                span = _past(span, wire.last_key(response))._replace(limit=limit)

    def stop(self) -> None:
        """Give up what is being read."""
        for task in self._tasks:
            task.cancel()

    async def _pages(self, span: Span) -> Range:
        limit = span.limit
        items: list[Item] = []
        revision = 0
        count = PAGE if span.keys_only else FIRST_RANGE
        while True:
            part = span._replace(limit=min(count, limit - len(items)) if limit else count)
            try:
                response = await self._client.ask(wire.RANGE, wire.range_request(part, revision))
            except TroubleError:
                if count <= FIRST_RANGE:
                    raise
                count = FIRST_PAGE  # values are much larger than those before
                continue
            page = wire.page(response, len(self._prefix))
            revision = revision or page.revision
            items += page.items
            if not page.more or len(items) == limit:
                return Range(revision, items, page.more)
            span = _past(span, wire.last_key(response))
            count = _fitting(page.items, len(page.items), RANGE_BYTES, PAGE)

    async def _get_lot(self, keys: Sequence[bytes]) -> list[Item | None]:
        found: list[Item | None] = []
        revision = 0
        for start in range(0, len(keys), MAX_OPS):
            part = keys[start : start + MAX_OPS]
            response = await self._read(part, revision)
            revision = revision or response[0]
            found += response[1]
        return found

    async def _read(
        self, keys: Sequence[bytes], revision: Revision = 0
    ) -> tuple[Revision, list[Item | None]]:
        wanted = wire.read_many([self._prefix + key for key in keys], revision)
        response = await self._client.ask(wire.TXN, wanted)
        return response.header.revision, wire.items_read(response, len(self._prefix))

    def _start(self) -> None:
        self._is_reading = True
        task = asyncio.get_running_loop().create_task(self._read_waiting())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read_waiting(self) -> None:
        """One transaction at a time for all that wait; none is answered by an earlier one."""
        try:
            while self._waiting:
                count = keys = 0
                while count < len(self._waiting) and keys <= MAX_OPS:
                    keys += len(self._waiting[count][0])
                    count += keys <= MAX_OPS
                batch, self._waiting = self._waiting[:count], self._waiting[count:]
                await self._read_batch(batch)
        except BaseException:
            self._fail(self._waiting, UnavailableError("the store is closed"))
            self._waiting = []
            raise
        finally:
            self._is_reading = False

    async def _read_batch(self, batch: Sequence[_Wanted]) -> None:
        try:
            _, found = await self._read([key for keys, _ in batch for key in keys])
        except StoreError as error:
            self._fail(batch, error)
            return
        except BaseException:
            self._fail(batch, UnavailableError("the store is closed"))
            raise
        at = 0
        for keys, answer in batch:
            if not answer.done():
                answer.set_result(found[at : at + len(keys)])
            at += len(keys)

    @staticmethod
    def _fail(batch: Sequence[_Wanted], error: StoreError) -> None:
        for _, answer in batch:
            if not answer.done():
                answer.set_exception(error)


def _past(span: Span, key: bytes) -> Span:
    """What is left of a span beyond a key."""
    if span.reverse:
        return span._replace(high=min(span.high, key))
    return span._replace(low=max(span.low, key + b"\0"))


def _portions(items: Sequence[Item]) -> Iterator[tuple[list[Item], bool]]:
    """A page in parts of `SNAPSHOT_BYTES` and an item at most, each with whether it is the last."""
    part: list[Item] = []
    size = 0
    for item in items:
        if size > SNAPSHOT_BYTES:
            yield part, False
            part, size = [], 0
        part.append(item)
        size += len(item.value)
    yield part, True


def _fitting(items: Sequence[Item], before: int, most_bytes: int, most: int) -> int:
    """How many more to ask for, where what follows is like the largest of these."""
    largest = max((len(item.key) + len(item.value) for item in items), default=0)
    return max(1, min(most_bytes // (largest + 1), 8 * before, most))
