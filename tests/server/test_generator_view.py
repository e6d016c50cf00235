"""How many arguments a colony's generators hold is counted as they come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from colonist_server.repo import keys
from colonist_server.repo.generator_view import GeneratorView
from colonist_server.repo.records import FiringRecord, encode
from colonist_server.repo.view import View
from colonist_server.store.interface import Change, Delete, Event, Op, Put

TAGS = [b"tag1", b"tag2"]
GIDS = [keys.definition_id(tag, 1, bytes([n]) * keys.RANDOM_BYTES) for tag in TAGS for n in (1, 2)]
SUFFIXES = [keys.argument_suffix(1, bytes([n]) * 8) for n in range(3)]

_gid = st.sampled_from(GIDS)
_puts = st.one_of(
    st.builds(
        lambda gid, suffix: Put(keys.argument(gid, suffix), b'"a"'), _gid, st.sampled_from(SUFFIXES)
    ),
    st.builds(
        lambda gid, number, suffixes: Put(
            keys.firing(gid, number),
            encode(
                FiringRecord(fired_ns=1, suffixes=tuple(suffixes), initiator_id="", initiator="ann")
            ),
        ),
        _gid,
        st.integers(1, 2),
        st.lists(st.sampled_from(SUFFIXES), unique=True),
    ),
)
_ops = st.one_of(_puts, _puts.map(lambda put: Delete(put.key)))


@given(st.lists(_ops, max_size=20))
def test_the_count_of_arguments_is_that_of_those_held(ops: list[Op]) -> None:
    view = View()
    generators = GeneratorView(view)
    for revision, op in enumerate(ops, 1):
        view.watched(Event(revision, (Change(op.key, op.value if isinstance(op, Put) else None),)))
        for tag in TAGS:
            held = [
                len(each.waiting) + len(each.taken)
                for each in generators.all.values()
                if each.tag == tag
            ]
            assert generators.arguments(tag) == sum(held)
