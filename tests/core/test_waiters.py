"""The waiting room against a list of who stands in it since when."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from colonist_core.matching import Profile, fits
from colonist_core.waiters import Parking, WaitingRoom
from tests.core.rows import NAMES, TYPES, Guest, asks, placements, profiles


def room_of(*profiles: Profile) -> tuple[WaitingRoom[Guest], list[Guest]]:
    room: WaitingRoom[Guest] = WaitingRoom()
    guests = [Guest(profile) for profile in profiles]
    for guest in guests:
        room.park(guest)
    return room, guests


def test_an_empty_room_has_nobody():
    room, _ = room_of()
    assert room.claim(asks()) is None
    assert (len(room), room.everyone(), room.of("cli", "ada")) == (0, [], [])


def test_the_longest_parked_goes_first():
    room, guests = room_of(*[Profile("cli", f"e{number}") for number in range(5)])
    assert [room.claim(asks()) for _ in range(6)] == [*guests, None]


def test_a_released_waiter_stands_where_it_stood():
    room, (first, second, third) = room_of(*[Profile("cli", "ada")] * 3)
    assert room.claim(asks()) is first
    assert room.claim(asks()) is second
    room.release(second)
    room.release(first)
    assert room.everyone() == [first, second, third]
    assert room.of("cli", "ada") == [first, second, third]
    assert room.claim(asks()) is first


def test_an_answered_waiter_is_not_parked_again():
    room, (guest,) = room_of(Profile("cli", "ada"))
    assert room.claim(asks()) is guest
    room.unpark(guest)
    room.release(guest)
    assert guest.parking is Parking.ANSWERED
    assert len(room) == 0


def test_an_empty_room_keeps_nothing_of_its_guests():
    room, guests = room_of(*[Profile(type, name) for type in TYPES for name in NAMES])
    for guest in guests:
        room.unpark(guest)
    assert (room._by_type, room._by_name) == ({}, {})


def test_types_are_those_of_who_waits():
    room, guests = room_of(Profile("cli", "ada"), Profile("cli", "ben"), Profile("gpu", "cyd"))
    assert set(room.types) == {"cli", "gpu"}
    for guest in guests[1:]:
        room.unpark(guest)
    assert set(room.types) == {"cli"}


def test_a_name_wakes_its_executor_past_those_who_wait_longer():
    room, (_, ben) = room_of(Profile("cli", "ada"), Profile("cli", "ben"))
    assert room.claim(asks(names=["ben", "cyd"])) is ben


class Against(RuleBasedStateMachine):
    """Parking, claiming, releasing and leaving in any order."""

    parked = Bundle("parked")
    claimed = Bundle("claimed")
    gone = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.room: WaitingRoom[Guest] = WaitingRoom()
        self.model: list[Guest] = []

    @rule(target=parked, profile=profiles)
    def park(self, profile):
        guest = Guest(profile)
        self.room.park(guest)
        self.model.append(guest)
        return guest

    @rule(target=claimed, wanted=placements)
    def claim(self, wanted):
        fitting = [guest for guest in self.model if fits(wanted, guest.profile)]
        expected = min(fitting, key=lambda guest: guest.number, default=None)
        found = self.room.claim(wanted)
        assert found is expected
        if found is None:
            return Guest(Profile("none", "none"), Parking.ANSWERED)
        assert found.parking is Parking.CLAIMED
        self.model.remove(found)
        return found

    @rule(guest=consumes(claimed))
    def release(self, guest):
        self.room.release(guest)
        if guest.parking is Parking.PARKED:
            self.model.append(guest)

    @rule(target=gone, guest=parked)
    def leave(self, guest):
        self.room.unpark(guest)
        if guest in self.model:
            self.model.remove(guest)
        assert guest.parking is Parking.ANSWERED
        return guest

    @rule(guest=gone)
    def leave_again(self, guest):
        self.room.unpark(guest)
        self.room.release(guest)

    @rule(type=st.sampled_from(TYPES), name=st.sampled_from(NAMES))
    def of_one(self, type, name):
        mine = [
            guest
            for guest in self.model
            if (guest.profile.type, guest.profile.name) == (type, name)
        ]
        assert self.room.of(type, name) == sorted(mine, key=lambda guest: guest.number)

    @invariant()
    def all_stand_in_line(self):
        line = sorted(self.model, key=lambda guest: guest.number)
        assert self.room.everyone() == line
        assert len(self.room) == len(line)
        assert all(guest.parking is Parking.PARKED for guest in line)


TestAgainst = Against.TestCase
