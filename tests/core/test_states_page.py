from colonist_core.process import TRANSITIONS, What
from scripts import draw_states


def test_the_page_of_states_is_fresh():
    assert draw_states.PAGE.read_text() == draw_states.page()


def test_the_page_has_every_transition():
    drawn = [line for line in draw_states.arrows() if "[*]" not in line]
    pairs = {(before, after) for before, table in TRANSITIONS.items() for after in table.values()}
    assert len(drawn) == len(pairs)
    for before, table in TRANSITIONS.items():
        for what, after in table.items():
            assert any(
                line.strip().startswith(f"{before.name} --> {after.name}:")
                and draw_states.word(what) in line
                for line in drawn
            )


def test_every_event_has_a_meaning_and_one_target():
    assert set(draw_states.MEANING) == set(What)
    for what in What:
        assert len({table[what] for table in TRANSITIONS.values() if what in table}) <= 1
