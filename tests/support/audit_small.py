"""A small colony whose audit file tests change, and the verdict on it."""

from __future__ import annotations

from tests.support.audit_files import Colony, Process
from tests.support.audit_memory import problem

STEPS = (400, 1 << 20)


def small() -> Colony:
    """A colony with a user, two executors and one process that ran; all under a checkpoint."""
    made = Colony(1)
    for kind in ("user", "executor", "executor"):
        made.add(kind)
    process = made.submit()
    made.assign(process)
    made.checkpoint()
    return made


def process_of(made: Colony) -> Process:
    return made.processes[0]


def verdict(made: Colony) -> str:
    made.checkpoint()
    data = made.export()
    found = {problem(data, made.server_id, step=step) for step in STEPS}
    assert len(found) == 1, found
    return found.pop()
