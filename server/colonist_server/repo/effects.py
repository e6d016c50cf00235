"""Whether the request at hand has had an effect: one that has had none may be tried once more.

A request knows its `Effect` by its context, so that whoever commits for it need not be told of it.
"""

from __future__ import annotations

from contextvars import ContextVar


class Effect:
    """What one try of a request has done: nothing as long as not `is_there`."""

    __slots__ = ("is_there",)

    def __init__(self) -> None:
        self.is_there = False


_current: ContextVar[Effect | None] = ContextVar("effect", default=None)


def begin() -> Effect:
    """A request is tried in this context; what it starts is counted in."""
    effect = Effect()
    _current.set(effect)
    return effect


def happened() -> None:
    """Something was committed, perhaps, or the caller was kept waiting: no second try."""
    effect = _current.get()
    if effect is not None:
        effect.is_there = True
