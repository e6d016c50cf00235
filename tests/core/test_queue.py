"""The queue against a sorted list."""

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from colonist_core.matching import UNLIMITED, Profile, fits
from colonist_core.queue import DAY_NS, MAX_CLASSES, Queue, priority_time
from tests.core.rows import AMOUNTS, NAMES, Item, Looks, asks, placements, profiles

ANYBODY = Profile("cli", "ada", "lund")


def pid(number: int) -> bytes:
    return number.to_bytes(32, "big")


def filled(items) -> Queue[Item]:
    queue: Queue[Item] = Queue()
    for item in items:
        queue.add(item)
    return queue


def drain(queue: Queue[Item], offered: Profile) -> list[Item]:
    found = []
    while (item := queue.first(offered)) is not None:
        found.append(item)
        queue.discard(item)
    return found


@given(st.integers(0, 2**62), st.integers(-50_000, 50_000))
def test_one_step_of_priority_is_one_day_of_age(submitted_ns, priority):
    assert priority_time(submitted_ns, priority) == submitted_ns - priority * DAY_NS
    assert priority_time(submitted_ns, priority) == priority_time(
        submitted_ns - priority * DAY_NS, 0
    )


def test_an_empty_queue_has_nothing():
    queue: Queue[Item] = Queue()
    assert queue.first(ANYBODY) is None
    assert (len(queue), list(queue)) == (0, [])


def test_equal_priority_runs_first_in_first_out():
    items = [Item(number, pid(1000 - number), asks()) for number in range(1000)]
    assert drain(filled(items), ANYBODY) == items


def test_the_same_instant_is_ordered_by_id_whenever_it_was_added():
    items = [Item(7, pid(number), asks()) for number in (3, 1, 2)]
    queue = filled(items)
    queue.discard(items[1])
    queue.add(items[1])
    assert [int.from_bytes(item.pid) for item in drain(queue, ANYBODY)] == [1, 2, 3]


@pytest.mark.parametrize("order", ["up", "down", "shuffled"])
def test_order_holds_over_many_blocks(order, seed):
    numbers = list(range(5000))
    if order == "down":
        numbers.reverse()
    elif order == "shuffled":
        random.Random(seed).shuffle(numbers)
    items = [Item(number, pid(number), asks()) for number in numbers]
    queue = filled(items)
    for item in items[::3]:
        queue.discard(item)
    left = sorted((item for item in items if item.ticket), key=lambda item: item.order)
    assert list(queue) == left
    assert len(queue) == len(left)
    assert drain(queue, ANYBODY) == left
    assert queue.first(ANYBODY) is None


def test_what_was_taken_out_may_be_put_back_at_its_old_place():
    items = [Item(number, pid(number), asks()) for number in range(200)]
    queue = filled(items)
    for item in items[:150]:
        queue.discard(item)
    for item in reversed(items[:150]):
        queue.add(item)
    assert drain(queue, ANYBODY) == items


def test_taking_out_twice_is_once():
    item = Item(1, pid(1), asks(names=["ada", "ben"]))
    queue = filled([item, Item(2, pid(2), asks())])
    queue.discard(item)
    queue.discard(item)
    assert len(queue) == 1
    queue.discard(Item(9, pid(9), asks()))
    assert len(queue) == 1


def test_a_process_that_names_executors_stands_once_for_each_and_is_taken_for_all():
    item = Item(1, pid(1), asks(names=["ada", "ben"]))
    queue = filled([item])
    assert list(queue) == [item]
    assert queue.first(Profile("cli", "ben")) is item
    assert queue.first(Profile("cli", "cyd")) is None
    queue.discard(item)
    assert queue.first(Profile("cli", "ada")) is None


@pytest.mark.parametrize("classes", [1, MAX_CLASSES, MAX_CLASSES + 1, 4 * MAX_CLASSES])
@pytest.mark.parametrize("cpu", [0, 1, 63, 64, 65, 100, UNLIMITED])
def test_folding_classes_changes_no_answer(classes, cpu):
    items = [
        Item(-number, pid(number), asks(cpu=number, mem=classes - number))
        for number in range(classes)
    ]
    offered = Profile("cli", "ada", "", cpu, UNLIMITED)
    found = drain(filled(items), offered)
    fitting = [item for item in items if fits(item.placement, offered)]
    assert found == sorted(fitting, key=lambda item: item.order)


def looks_at_first(backlog: int, offered: Profile, make) -> int:
    """How many entries a look at the head touches, after some have been taken out of the middle."""
    looks = Looks()
    items = [Item(number, pid(number), make(number), looks) for number in range(backlog)]
    queue = filled(items)
    for item in items[1:backlog:7]:
        queue.discard(item)
    looks.count = 0
    queue.first(offered)
    return looks.count


@pytest.mark.parametrize(
    ("offered", "make"),
    [
        (ANYBODY, lambda _: asks()),
        (ANYBODY, lambda number: asks(names=[NAMES[number % 3]])),
        (ANYBODY, lambda number: asks(cpu=AMOUNTS[number % 5])),
        (Profile("cli", "ada", "", 1000, 1000), lambda number: asks(cpu=number % 200)),
        (Profile("cli", "ada", "", 0, 0), lambda number: asks(cpu=128 + number % 100)),
        (Profile("gpu", "ada"), lambda _: asks()),
    ],
)
def test_the_cost_of_first_does_not_grow_with_the_backlog(offered, make):
    assert looks_at_first(40_000, offered, make) <= looks_at_first(700, offered, make) + 1


def test_dropping_marks_is_paid_for_once():
    looks = Looks()
    items = [Item(number, pid(number), asks(), looks) for number in range(4000)]
    queue = filled(items)
    drained = drain(queue, ANYBODY)
    assert len(drained) == 4000
    assert looks.count < 12 * len(items)


def buckets(queue: Queue[Item]):
    return [bucket for shelf in queue._places.values() for bucket in shelf]


def check_books(queue: Queue[Item]) -> None:
    """Each bucket knows how many of its entries stand and how many are marks."""
    for bucket in buckets(queue):
        entries = [entry for block in bucket._blocks for entry in block]
        standing = sum(entry[3].ticket == entry[2] for entry in entries)
        assert (bucket._live, bucket._marks) == (standing, len(entries) - standing)
        assert standing


def test_many_classes_cost_no_more_than_a_few():
    def one_class_each(number):
        return asks(cpu=number, mem=number)

    assert looks_at_first(8000, ANYBODY, one_class_each) <= 2 * MAX_CLASSES


def test_what_fits_comes_in_order_and_the_rest_is_not_looked_at():
    looks = Looks()
    items = [Item(number, pid(number), asks(cpu=number % 7), looks) for number in range(40_000)]
    queue = filled(items)
    looks.count = 0
    offered = Profile("cli", "ada", cpu=3)
    expected = [item for item in items[:20] if item.placement.cpu <= 3]
    assert list(islice(queue.fitting(offered), len(expected))) == expected
    assert looks.count <= 2 * len(expected)


def test_taking_from_behind_the_head_stays_cheap_however_much_was_taken():
    looks = Looks()
    items = [Item(number, pid(number), asks(), looks) for number in range(40_000)]
    queue = filled(items)
    looks.count = 0
    for expected in items[3:20_003]:
        *heads, item = islice(queue.fitting(ANYBODY), 4)
        assert heads == items[:3]
        assert item is expected
        queue.discard(item)
    assert looks.count < 60 * 20_000
    check_books(queue)


def test_what_stands_behind_many_marks_is_found():
    items = [Item(number, pid(number), asks()) for number in range(3000)]
    queue = filled(items)
    for item in items[1:1500]:
        queue.discard(item)
    for _ in range(3):
        assert list(islice(queue.fitting(ANYBODY), 100)) == [items[0], *items[1500:1599]]
        check_books(queue)
    for item in items[1:1500]:
        queue.add(item)
    assert list(queue.fitting(ANYBODY)) == items == list(queue)


@pytest.mark.parametrize("numbers", [range(5000), range(5000, 0, -1)])
def test_an_insertion_moves_few_entries(numbers):
    queue = filled([Item(number, pid(number), asks()) for number in numbers])
    [bucket] = buckets(queue)
    assert max(map(len, bucket._blocks)) <= 1024
    assert len(bucket._blocks) >= 4


def test_what_was_taken_out_is_forgotten():
    items = [Item(number, pid(number), asks()) for number in range(5000)]
    queue = filled(items)
    for item in items[:600]:
        queue.discard(item)
    assert queue.first(ANYBODY) is items[600]
    check_books(queue)
    for item in items[601:4990]:
        queue.discard(item)
        if item.priority_ns % 100 == 0:
            check_books(queue)
    [bucket] = buckets(queue)
    assert sum(map(len, bucket._blocks)) < 200
    for item in [*items[4990:], items[600]]:
        queue.discard(item)
    assert queue._places == {}


class Against(RuleBasedStateMachine):
    """Adding, taking out and putting back in any order."""

    inside = Bundle("inside")
    outside = Bundle("outside")

    def __init__(self) -> None:
        super().__init__()
        self.queue: Queue[Item] = Queue()
        self.model: list[Item] = []
        self.number = 0

    def make(self, priority, wanted) -> Item:
        self.number += 1
        item = Item(priority, pid(self.number), wanted)
        self.queue.add(item)
        self.model.append(item)
        return item

    @rule(target=inside, priority=st.integers(0, 20), wanted=placements)
    def add(self, priority, wanted):
        return self.make(priority, wanted)

    @rule(target=inside, many=st.integers(1, 100), step=st.sampled_from([1, 7, 64]))
    def add_classes(self, many, step):
        return multiple(
            *[
                self.make(number % 5, asks(cpu=number * step, mem=(many - number) * step))
                for number in range(many)
            ]
        )

    @rule(target=outside, item=consumes(inside))
    def discard(self, item):
        self.queue.discard(item)
        self.model.remove(item)
        return item

    @rule(target=inside, item=consumes(outside))
    def put_back(self, item):
        self.queue.add(item)
        self.model.append(item)
        return item

    @rule(item=outside)
    def discard_again(self, item):
        self.queue.discard(item)

    @rule(offered=profiles)
    def first(self, offered):
        fitting = [item for item in self.model if fits(item.placement, offered)]
        expected = min(fitting, key=lambda item: item.order, default=None)
        assert self.queue.first(offered) is expected

    @rule(offered=profiles, many=st.integers(0, 100))
    def look_at_some(self, offered, many):
        fitting = [item for item in self.model if fits(item.placement, offered)]
        fitting.sort(key=lambda item: item.order)
        assert list(islice(self.queue.fitting(offered), many)) == fitting[:many]

    @invariant()
    def all_are_there_in_order(self):
        assert len(self.queue) == len(self.model)
        assert list(self.queue) == sorted(self.model, key=lambda item: item.order)
        check_books(self.queue)


TestAgainst = Against.TestCase
