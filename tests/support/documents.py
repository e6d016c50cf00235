"""The command blocks of README.md, so that tests run what the reader will type.

Directly above each fenced `sh` block stands an HTML comment that the reader does not see:

    <!-- tested: quickstart by tests/e2e/test_readme.py::test_quickstart -->
    <!-- not tested: installs a system package -->

The named test takes its commands from here, `commands("quickstart")`, so text and test cannot
drift apart; `tests/toolchain/test_documents.py` refuses a block without a comment and a comment
without a test.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/quickstart.md", "docs/howto/etcd.md", "docs/howto/keys.md")

_FENCE = re.compile(r"(?P<before>[^\n]*\n)?```sh\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_TESTED = re.compile(r"<!-- tested: (?P<name>[\w-]+) by (?P<file>\S+)::(?P<test>\w+) -->")
_NOT_TESTED = re.compile(r"<!-- not tested: (?P<reason>.+) -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its commands, and the test that runs them or the reason why none does."""

    commands: tuple[str, ...]
    name: str = ""
    file: str = ""
    test: str = ""
    reason: str = ""


def commands(name: str) -> tuple[str, ...]:
    """The commands of the block with this name, one line each."""
    return next(block.commands for _, block in every_block() if block.name == name)


def every_block() -> list[tuple[str, Block]]:
    """All blocks of all documents, each with its document."""
    present = [(document, ROOT / document) for document in DOCUMENTS]
    return [
        (document, block)
        for document, path in present
        if path.exists()
        for block in parse(path.read_text())
    ]


def parse(text: str) -> list[Block]:
    """The `sh` blocks of a Markdown text."""
    return [_block(found["before"] or "", found["body"]) for found in _FENCE.finditer(text)]


def _block(before: str, body: str) -> Block:
    lines = body.replace("\\\n", " ").splitlines()
    typed = tuple(line for line in lines if line.strip() and not line.startswith("#"))
    if tested := _TESTED.fullmatch(before.strip()):
        return Block(commands=typed, **tested.groupdict())
    if not_tested := _NOT_TESTED.fullmatch(before.strip()):
        return Block(commands=typed, reason=not_tested["reason"])
    return Block(commands=typed)
