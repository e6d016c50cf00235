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
        steps = {state: table[what] for state, table in TRANSITIONS.items() if what in table}
        is_silent = all(before is after for before, after in steps.items())
        assert is_silent or len(set(steps.values())) == 1


def test_what_changes_no_state_is_said_to_stay():
    row = next(line for line in draw_states.rows() if line.startswith("| `recorded` |"))
    assert row.startswith("| `recorded` | WAITING, RUNNING | (the same) |")
