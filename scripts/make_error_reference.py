#!/usr/bin/env python3
"""Write docs/reference/errors.md out of colonist_protocol/errors.py.

    .venv/bin/python scripts/make_error_reference.py

A test says that the page is fresh.
"""

from __future__ import annotations

from pathlib import Path

from colonist_protocol import errors
from colonist_protocol.errors import ColonistError

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "errors.md"

HEAD = """\
<!-- Made by scripts/make_error_reference.py out of colonist_protocol/errors.py. -->

# Errors

A refused request is answered with `"error": true` and this JSON in `payload`:

```json
{"status": 404, "message": "No process available for assignment",
 "code": "no_process", "retry_after_s": 0.0}
```

- `status` is the HTTP status as well.
- `code` is stable: decide by it. A code that you do not know means what its status says.
- `message` is for people and may change; it never holds a key or the body of a message.
- `retry_after_s`, where it is not 0, is how long to wait before the next try.

In Python each code is a class in `colonist_protocol.errors`; one that stands below another is a
kind of it, so `except MalformedError` catches every request that cannot be read.

| code | status | class | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    return HEAD + "".join(rows(ColonistError, 0))


def rows(kind: type[ColonistError], level: int) -> list[str]:
    """The row of a class and of all below it, in the order of the module."""
    meaning = " ".join((kind.__doc__ or "").split())
    row = f"| `{kind.code}` | {kind.status} | {'· ' * level}{kind.__name__} | {meaning} |\n"
    below = [each for each in vars(errors).values() if is_child(each, kind)]
    return [row, *(line for each in below for line in rows(each, level + 1))]


def is_child(value: object, kind: type[ColonistError]) -> bool:
    """Whether this is a class directly below `kind`."""
    return isinstance(value, type) and value.__base__ is kind


if __name__ == "__main__":
    PAGE.write_text(page())
