"""What an agent counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Counters:
    """All since the start of the agent."""

    assigned: int = 0
    succeeded: int = 0
    failed: int = 0
    abandoned: int = 0
    returned: int = 0
    delivered: int = 0
    undelivered: int = 0
    lines_dropped: int = 0
    assign_errors: int = 0
    crashes: int = 0
