#!/usr/bin/env python3
"""Write docs/reference/process-states.md out of the table in colonist_core/process.py.

    .venv/bin/python scripts/draw_states.py

A test says that the page is fresh.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from colonist_core.process import (
    EXEC_EXPIRED,
    MAX_UNSTARTED,
    NEVER_STARTED,
    TRANSITIONS,
    WAIT_EXPIRED,
    What,
)
from colonist_protocol.process import FINAL, State

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "process-states.md"

MEANING: Final = {
    What.SUBMITTED: "A member submitted it: attempt 0, the first event of its chain.",
    What.ASSIGNED: "Granted to an executor: a new attempt, `maxexectime` runs.",
    What.SUCCEEDED: "Its executor closed it with a result; a sealed one also after its time "
    "(`lateresult`).",
    What.FAILED: "Its executor closed it with reasons. It is not tried again. A sealed one also "
    "after its time, while nobody else was given the process.",
    What.CANCELLED: "A member cancelled it. Its executor is not told; its close is refused.",
    What.REQUEUED: "`maxexectime` is up and retries are left: one retry is used.",
    What.EXPIRED: f'`maxexectime` is up and no retry is left: "{EXEC_EXPIRED}".',
    What.WAITED_OUT: f'`maxwaittime` is up: "{WAIT_EXPIRED}".',
    What.UNDELIVERED: "The executor was gone before its reply could be sent. No retry is used.",
    What.REDELIVERED: "The server stopped before the reply was seen: the executor's next assign "
    "gets it again. Or a sealed assign was presented again. Same attempt, same deadline.",
    What.ORPHANED: "Its executor was removed. No retry is used.",
    What.RELEASED: "Its executor gave it back unfinished. No retry is used.",
    What.PARENT_FAILED: "A process of its workflow that it waited for, directly or not, failed.",
    What.UNSTARTED: "`maxexectime` is up, and nothing was heard of the attempt, which was granted "
    "to a sealed request. No retry is used.",
    What.NEVER_STARTED: f'The same, {MAX_UNSTARTED} times in a row: "{NEVER_STARTED}".',
    What.CONFIRMED: "The first sealed request of an attempt: it has started.",
    What.RENEWED: "Its executor prolonged its lease.",
    What.RECORDED: "A result came that changes nothing: of an attempt that is over, or of one that "
    "a restored store forgot.",
}

HEAD = """\
<!-- Made by scripts/draw_states.py out of colonist_core/process.py. -->

# The states of a process

```mermaid
stateDiagram-v2
"""

MIDDLE = """\
```

Whatever is not drawn is refused (`conflict`) and changes nothing.
A process that goes back to WAITING keeps its place in the queue and its `maxwaittime` starts anew.
`maxretries` counts time-outs: 3 means up to four runs, a negative number no limit.
A limit of 0 or less is no limit.

| event | from | to | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(arrows()) + MIDDLE + "".join(rows())


def arrows() -> list[str]:
    """The diagram: an arrow for each pair of states, with all that leads along it."""
    lines = [f"    [*] --> {State.WAITING.name}: {word(What.SUBMITTED)}\n"]
    for before, table in TRANSITIONS.items():
        for after in dict.fromkeys(table.values()):
            words = ", ".join(word(what) for what, to in table.items() if to is after)
            lines.append(f"    {before.name} --> {after.name}: {words}\n")
    return [*lines, *(f"    {state.name} --> [*]\n" for state in State if state in FINAL)]


def rows() -> list[str]:
    """A row for each event."""
    lines: list[str] = []
    for what in What:
        steps = [(before, table[what]) for before, table in TRANSITIONS.items() if what in table]
        sources = ", ".join(before.name for before, _ in steps) or "(none)"
        target = steps[0][1].name if steps else State.WAITING.name
        if len({after for _, after in steps}) > 1:
            target = "(the same)"
        lines.append(f"| `{word(what)}` | {sources} | {target} | {MEANING[what]} |\n")
    return lines


def word(what: What) -> str:
    """An event as it stands in the evidence."""
    return what.name.lower()


if __name__ == "__main__":
    PAGE.write_text(page())
