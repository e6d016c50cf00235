"""What stands in a queue or a waiting room in these tests: counts how often it is looked at."""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from colonist_core.matching import UNLIMITED, Placement, Profile, placement
from colonist_core.waiters import Parking

TYPES = ("cli", "gpu")
NAMES = ("ada", "ben", "cyd")
LOCATIONS = ("", "Lund", "oslo")
AMOUNTS = (0, 1, 500, 1000, 4000)


class Looks:
    """How often anything asked whether an entry still stands."""

    def __init__(self) -> None:
        self.count = 0


@dataclass(eq=False, slots=True)
class Item:
    """A process in a queue."""

    priority_ns: int
    pid: bytes
    placement: Placement
    looks: Looks = field(default_factory=Looks)
    _ticket: int = 0

    @property
    def ticket(self) -> int:
        self.looks.count += 1
        return self._ticket

    @ticket.setter
    def ticket(self, value: int) -> None:
        self._ticket = value

    @property
    def order(self) -> tuple[int, bytes]:
        return (self.priority_ns, self.pid)


@dataclass(eq=False, slots=True)
class Guest:
    """A waiter in a room."""

    profile: Profile
    parking: Parking = Parking.NEW
    number: int = 0


def asks(type="cli", names=None, location="", cpu=0, mem=0):
    return placement(type=type, names=names, location=location, cpu=cpu, mem=mem)


placements = st.builds(
    asks,
    type=st.sampled_from(TYPES),
    names=st.none() | st.lists(st.sampled_from((*NAMES, "*")), max_size=3),
    location=st.sampled_from(LOCATIONS),
    cpu=st.sampled_from(AMOUNTS),
    mem=st.sampled_from(AMOUNTS),
)
profiles = st.builds(
    Profile,
    type=st.sampled_from(TYPES),
    name=st.sampled_from(NAMES),
    location=st.sampled_from(LOCATIONS).map(str.casefold),
    cpu=st.sampled_from((UNLIMITED, *AMOUNTS)),
    mem=st.sampled_from((UNLIMITED, *AMOUNTS)),
)
