"""What a document tells the reader to type is what a test runs."""

import ast

import pytest

from tests.support import documents

BLOCKS = documents.every_block()

SAMPLE = """
Text.

<!-- tested: start by tests/e2e/test_readme.py::test_start -->
```sh
make demo
# a remark
colonist submit \\
  --colony x
```

<!-- not tested: needs a password -->
```sh
su -
```

No comment.
```sh
rm -rf /
```
"""


def test_a_document_is_parsed() -> None:
    start, password, bare = documents.parse(SAMPLE)
    assert start.commands == ("make demo", "colonist submit    --colony x")
    assert (start.name, start.file, start.test) == (
        "start",
        "tests/e2e/test_readme.py",
        "test_start",
    )
    assert password.reason == "needs a password"
    assert not bare.name
    assert not bare.reason


def test_each_block_is_run_by_a_test_or_says_why_not() -> None:
    found = [problem for document, block in BLOCKS if (problem := problem_of(document, block))]
    assert not found, "\n".join(found)


def problem_of(document: str, block: documents.Block) -> str:
    """What is wrong with a block, or nothing."""
    start = f"{document}: the block that starts with {block.commands[:1]}"
    if block.reason:
        return ""
    if not block.name:
        return f"{start} has no comment `tested: ... by ...` or `not tested: ...` above it"
    path = documents.ROOT / block.file
    source = _function(path.read_text(), block.test) if path.exists() else None
    if source is None:
        return f"{start} names a test that is not there: {block.file}::{block.test}"
    asks = f'commands("{block.name}")'
    return "" if asks in source else f"{start}: {block.test} does not use {asks}"


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (documents.Block(commands=("ls",)), "has no comment"),
        (documents.Block(commands=("ls",), name="a", file="no.py", test="t"), "not there"),
        (
            documents.Block(
                commands=("ls",),
                name="a",
                file="tests/toolchain/test_documents.py",
                test="test_a_document_is_parsed",
            ),
            "does not use",
        ),
    ],
)
def test_a_block_without_its_test_is_seen(block: documents.Block, problem: str) -> None:
    assert problem in problem_of("x.md", block)


def test_block_names_are_used_once() -> None:
    names = [block.name for _, block in BLOCKS if block.name]
    assert sorted(names) == sorted(set(names))


def _function(source: str, name: str) -> str | None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and node.name == name:
            return ast.unparse(node).replace("'", '"')
    return None
