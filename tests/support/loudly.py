"""Runs a program of ours so that it tells all it can: every log line, and locals in tracebacks.

python -m tests.support.loudly [--crash MODULE:NAME] MODULE:MAIN ARGUMENT...

What `--crash` names raises when it is called.
"""

from __future__ import annotations

import importlib
import logging
import operator
import sys
import traceback
from types import TracebackType
from typing import Any, Final

PLANTED: Final = "planted by the test"


def main(words: list[str]) -> object:
    """Replace, then run."""
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s %(message)s")
    sys.excepthook = _show
    while words[0] == "--crash":
        _break(words[1])
        words = words[2:]
    sys.argv = words
    return _find(words[0])()


def _show(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    found = traceback.TracebackException(kind, error, where, capture_locals=True)
    sys.stderr.write("".join(found.format()))


def _find(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def _break(name: str) -> None:
    module, _, attribute = name.partition(":")
    owner, _, last = attribute.rpartition(".")
    place = _find(f"{module}:{owner}") if owner else importlib.import_module(module)

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError(PLANTED)

    setattr(place, last, crash)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
