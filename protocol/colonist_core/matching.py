"""Which executor may run which process: COLONIES-RPC section 4.2, as values."""

from __future__ import annotations

from typing import Final

import msgspec

ANY: Final = "*"
UNLIMITED: Final = -1


class Placement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a process asks of its executor. CPU in milli-cores, memory in bytes.

    `names` empty: any name; `location` is folded to lower case, empty: anywhere.
    """

    type: str
    names: tuple[str, ...] = ()
    location: str = ""
    cpu: int = 0
    mem: int = 0


class Profile(msgspec.Struct, frozen=True, gc=False):
    """What an executor that asks for work offers; `UNLIMITED` CPU or memory fits everything."""

    type: str
    name: str
    location: str = ""
    cpu: int = UNLIMITED
    mem: int = UNLIMITED


def placement(
    *, type: str, names: list[str] | None, location: str, cpu: int, mem: int
) -> Placement:
    """A placement in its normal form: `["*"]` is any name, names are sorted and stand once."""
    chosen = () if not names or ANY in names else tuple(sorted(set(names)))
    return Placement(type, chosen, location.casefold(), cpu, mem)


def fits(wanted: Placement, offered: Profile) -> bool:
    """Whether the executor may run the process."""
    return (
        wanted.type == offered.type
        and (not wanted.names or offered.name in wanted.names)
        and (not wanted.location or wanted.location == offered.location)
        and has_room(wanted.cpu, wanted.mem, offered)
    )


def has_room(cpu: int, mem: int, offered: Profile) -> bool:
    """Whether amounts are within what is offered."""
    return (offered.cpu == UNLIMITED or cpu <= offered.cpu) and (
        offered.mem == UNLIMITED or mem <= offered.mem
    )
