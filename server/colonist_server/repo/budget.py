"""How large a reply may become, and what is kept in memory for a colony.

A list that has used up its bytes ends early; its caller asks on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from colonist_protocol import codec
from colonist_protocol.errors import BusyError

REPLY_BYTES: Final = 16 * 1_048_576
"""What the entries of one list may be as JSON, taken together; one is always shown."""
MAX_SPECS_BYTES: Final = 32 * 1_048_576
"""What the workflow specs of a colony's crons may be together, and those of its generators: they
are kept in memory."""
MAX_FUNCTIONS: Final = 1_000
"""How many functions an executor may announce."""
MAX_FUNCTION_BYTES: Final = 4 * 1_048_576
"""What the texts of those may take of memory."""
MAX_ALL_FUNCTION_BYTES: Final = 64 * 1_048_576
"""The same for all executors of a colony."""

_FEW: Final = 16
_MANY: Final = 50
"""Records that are read together, before and after it is known that they are small."""

T = TypeVar("T")


class Budget:
    """What is left of a number of bytes, of `REPLY_BYTES` if none is given.

    What does not fit uses it up.
    """

    __slots__ = ("_is_begun", "_left", "size")

    def __init__(self, size: int = 0) -> None:
        self.size = self._left = size or REPLY_BYTES
        self._is_begun = False

    @property
    def is_spent(self) -> bool:
        """Whether something did not fit."""
        return self._left < 0

    def has(self, size: int) -> bool:
        """Whether so many bytes more would fit."""
        return size <= self._left

    def spend(self) -> None:
        """Let nothing more fit."""
        self._left = -1

    def takes(self, size: int) -> bool:
        """Whether so many bytes more fit."""
        self._left -= size
        return self._left >= 0

    def holds(self, entry: object) -> bool:
        """Whether a list has room for one more entry; for its first it always has."""
        is_first, self._is_begun = not self._is_begun, True
        return self.takes(len(codec.encode(entry))) or is_first

    def first(self, entries: Iterable[T]) -> list[T]:
        """As many entries as there is room for."""
        found: list[T] = []
        for entry in entries:
            if not self.holds(entry):
                break
            found.append(entry)
        return found

    def portions(self, wanted: Sequence[T]) -> Iterator[Sequence[T]]:
        """What is to be read, in parts; none after the budget is spent."""
        start = 0
        while start < len(wanted) and not self.is_spent:
            is_light = start and self._left > self.size * 15 // 16
            part = wanted[start : start + (_MANY if is_light else _FEW)]
            yield part
            start += len(part)


def check_specs(specs: Iterable[str], wanted: str, what: str) -> None:
    """Raise `BusyError` unless a colony may have one more spec. `what`: crons or generators."""
    if sum(map(_size, specs)) + _size(wanted) > MAX_SPECS_BYTES:
        raise BusyError(
            f"the workflow specs of the colony's {what} would be over {MAX_SPECS_BYTES} bytes"
        )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
