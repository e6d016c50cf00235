"""How much callers may ask of a server: the limits, and buckets of allowance that fill evenly.

A bucket is one number: the moment at which it will be full again (the generic cell rate algorithm).
So a full one holds nothing, and who has been quiet for a while is forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Final

import msgspec

from colonist_protocol.errors import InvalidValueError
from colonist_protocol.times import SECOND_NS

SWEEP_NS: Final = SECOND_NS
MAX_LIMIT: Final = 10**9
_NUMBER: Final = re.compile("[0-9]{1,10}")


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server allows; each a whole number from 1. Raises `InvalidValueError`.

    An identity makes `rate` requests a second, `burst` of them at once after a rest, and has at
    most `requests` under way, of which an executor's `polls` are assigns. In a colony at most
    `colony_polls` assigns are under way, and `waiting` processes and packed arguments wait. Of one
    message the JSON has so many bytes: of a function spec, a workflow, packed arguments, an output,
    an attribute, log lines. A process has `process_attributes` attributes set while it runs, of
    `process_attribute_bytes` together. From one address `strangers` signatures of unknown callers a
    second are worked through, and from all addresses that sent nothing else lately `all_strangers`.
    """

    rate: int = 10_000
    burst: int = 20_000
    requests: int = 4_096
    polls: int = 256
    colony_polls: int = 20_000
    waiting: int = 1_000_000
    spec_bytes: int = 1_048_576
    workflow_bytes: int = 16_777_216
    args_bytes: int = 1_048_576
    output_bytes: int = 1_048_576
    attribute_bytes: int = 1_048_576
    process_attributes: int = 1_000
    process_attribute_bytes: int = 4_194_304
    log_bytes: int = 1_048_576
    strangers: int = 1_000
    all_strangers: int = 4_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 1 <= getattr(self, name) <= MAX_LIMIT:
                raise InvalidValueError(f"the limit {name} is not 1 to {MAX_LIMIT}")


def read_limits(text: str, base: Limits | None = None) -> Limits:
    """Limits as `rate=50, polls=4`, over those of `base`. Raises `InvalidValueError`."""
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in Limits.__struct_fields__:
            known = ", ".join(Limits.__struct_fields__)
            raise InvalidValueError(f"there is no limit {name[:32]!r}: there are {known}")
        if not equals or _NUMBER.fullmatch(number) is None:
            raise InvalidValueError(f"the limit {name} is not given as {name}=NUMBER")
        if name in found:
            raise InvalidValueError(f"the limit {name} is given twice")
        found[name] = int(number)
    return msgspec.structs.replace(base or Limits(), **found)


class Rate(msgspec.Struct, frozen=True, gc=False):
    """So many units a second in the long run, and `burst` of them at once after a rest."""

    per_s: int
    burst: int

    def __post_init__(self) -> None:
        if not 0 < self.per_s <= SECOND_NS or self.burst < 1:
            raise InvalidValueError(
                f"a rate of {self.per_s} a second with {self.burst} at once is none: a second has"
                f" 1 to {SECOND_NS}, and at least 1 comes at once"
            )

    @property
    def unit_ns(self) -> int:
        """How long one unit takes to fill up again."""
        return SECOND_NS // self.per_s


class Buckets:
    """One bucket for each key, of at most `capacity` keys; those beyond share one.

    So whoever comes under many names wins nothing by it, and holds no memory. More than a burst is
    taken from a full bucket, which then owes the rest: what is large costs its time, but it comes.
    """

    __slots__ = (
        "_burst",
        "_capacity",
        "_full_ns",
        "_shared_ns",
        "_span_ns",
        "_swept_ns",
        "_unit_ns",
    )

    def __init__(self, rate: Rate, capacity: int) -> None:
        self._burst = rate.burst
        self._unit_ns = rate.unit_ns
        self._span_ns = rate.burst * rate.unit_ns
        self._capacity = capacity
        self._full_ns: dict[Hashable, int] = {}
        self._shared_ns = 0
        self._swept_ns = 0

    def __len__(self) -> int:
        return len(self._full_ns)

    def take(self, key: Hashable, now_ns: int, units: int = 1) -> int:
        """Take from a key's bucket: 0, or how many ns it lacks; then nothing was taken."""
        known = self._full_ns.get(key)
        is_own = known is not None or self._has_room(now_ns)
        full_ns = max(now_ns, (known or 0) if is_own else self._shared_ns)
        room_ns = min(units, self._burst) * self._unit_ns
        lacks_ns = full_ns + room_ns - now_ns - self._span_ns
        if lacks_ns > 0:
            return lacks_ns
        full_ns += units * self._unit_ns
        if is_own:
            self._full_ns[key] = full_ns
        else:
            self._shared_ns = full_ns
        return 0

    def give_back(self, key: Hashable, units: int = 1) -> None:
        """Undo a `take`."""
        self.charge(key, -units)

    def charge(self, key: Hashable, units: int) -> None:
        """Take more after a `take`, whether it is there or owed."""
        known = self._full_ns.get(key)
        if known is not None:
            self._full_ns[key] = known + units * self._unit_ns
        else:
            self._shared_ns += units * self._unit_ns

    def _has_room(self, now_ns: int) -> bool:
        if len(self._full_ns) < self._capacity:
            return True
        if now_ns - self._swept_ns >= SWEEP_NS:
            self._swept_ns = now_ns
            self._full_ns = {key: full for key, full in self._full_ns.items() if full > now_ns}
        return len(self._full_ns) < self._capacity
