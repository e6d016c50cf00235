"""Standing assigns: one signature for many grants, made one after the other as they are asked for.

A device signs such a request once; whoever holds it for the device (a bridge) asks for grant after
grant by an unsigned index. So the server makes grant k once, after k - 1, and only while fewer than
`ahead` of the grants are open without a word of the device: nobody can hoard work in its name.

What was granted stands in the records of the request, one an index. This node remembers the open
ones of those that it has served lately, and reads the records of others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from colonist_core.process import Live
from colonist_protocol.errors import BusyError, ConflictError
from colonist_protocol.process import State
from colonist_server.repo import keys
from colonist_server.repo.once import TURN_BYTES, Once
from colonist_server.repo.records import decode_live
from colonist_server.repo.view import View
from colonist_server.repo.writes import Writes

MOST_BOOKS: Final = 20_000
RETRY_AFTER_S: Final = 1.0


class _Noted(NamedTuple):
    """A grant: the process, and the number of the attempt; whether this node's view has had it."""

    pid: bytes
    number: int
    is_seen: bool


class _Book:
    """The grants of one request: how many were made, and which may be open still."""

    __slots__ = ("made", "open")

    def __init__(self) -> None:
        self.made = 0
        self.open: list[_Noted] = []

    def note(self, value: bytes, *, is_seen: bool) -> None:
        """One more grant, as its record says."""
        self.made += 1
        pid, number = value[: keys.PID_BYTES], int.from_bytes(value[keys.PID_BYTES :], "big")
        self.open.append(_Noted(pid, number, is_seen))


class Standing:
    """Which grants of standing assigns may be made."""

    __slots__ = ("_books", "_view", "_writes")

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._view: View = writes.view
        self._books: OrderedDict[bytes, _Book] = OrderedDict()

    async def check(self, bound: Once, ahead: int) -> None:
        """Raise unless grant number `bound.mark.turn` may be made now.

        Raises `ConflictError` where the one before was not made, `BusyError` where too many are
        open.
        """
        book = self._books.get(bound.mark.digest)
        if book is None or book.made < bound.mark.turn:
            book = await self._read(bound, book or _Book())
        if book.made > bound.mark.turn:
            await self._writes.refresh([])  # it was made: the way out is there
        if book.made < bound.mark.turn:
            raise ConflictError(f"grant {bound.mark.turn - 1} of this assign was not made yet")
        over = await self._over(book.open)
        book.open = [each for each in book.open if each not in over]
        if len(book.open) >= ahead:
            raise BusyError(
                "the device has said nothing yet of what it was granted last",
                retry_after_s=RETRY_AFTER_S,
            )

    def note(self, bound: Once | None) -> None:
        """A grant was made at this node, perhaps to a standing assign."""
        if bound is None:
            return
        book = self._books.get(bound.mark.digest)
        if book is not None and book.made == bound.mark.turn:
            book.note(bound.value, is_seen=True)

    async def _read(self, bound: Once, book: _Book) -> _Book:
        """The book of a request, brought from its records up to the grant that is asked for."""
        self._books[bound.mark.digest] = book
        while len(self._books) > MOST_BOOKS:
            self._books.popitem(last=False)
        made, family = book.made, bound.mark.family
        if made < bound.mark.turn:
            after = family + (made - 1).to_bytes(TURN_BYTES, "big") if made else b""
            page = await self._writes.range(family, after=after, limit=bound.mark.turn - made)
            for item in page.items[book.made - made :]:  # others may have read them meanwhile
                book.note(item.value, is_seen=False)
        return book

    async def _over(self, noted: Sequence[_Noted]) -> set[_Noted]:
        """Those that are no attempts under way, or of which the device has said something.

        What the view shows as open no more was in it, or is read, once: the records of the request
        may tell of grants of which this node has not heard yet. None opens again.
        """
        over = {each for each in noted if not self._is_open(each)}
        unsure = [each for each in over if not each.is_seen]
        if unsure:
            items = await self._writes.read_many([keys.live(each.pid) for each in unsure])
            over -= {
                each
                for each, item in zip(unsure, items, strict=True)
                if item is not None and _is_silent(decode_live(item.value), each.number)
            }
        return over

    def _is_open(self, noted: _Noted) -> bool:
        row = self._view.rows.get(noted.pid)
        return row is not None and _is_silent(row.live(), noted.number)


def _is_silent(live: Live, number: int) -> bool:
    """Whether an attempt runs, and its device has said nothing of it."""
    return live.state == State.RUNNING and live.attempt == number and not live.is_confirmed
