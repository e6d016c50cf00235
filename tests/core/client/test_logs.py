"""What others say in logs neither steers a terminal nor looks like a record."""

import io
import logging

import pytest

from colonist_client import logs

EVIL = "\x1b[2J\x1b]0;gone\x07evil\n2026-11-23 INFO forged\r\x9b31m\u202eX\u2028Y"


def test_a_record_is_one_line_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.begin("INFO", "%(levelname)s %(message)s", stream)
    logging.getLogger("x").info("it says: %s", EVIL)
    logging.getLogger("x").debug("not told")
    said = stream.getvalue()
    assert said.startswith("INFO it says: \\x1b[2J")
    assert "evil\\n2026-11-23 INFO forged\\r\\x9b31m\\u202eX\\u2028Y" in said
    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_no_line_of_a_traceback_looks_like_a_record() -> None:
    error = ValueError(EVIL)
    fault = (ValueError, error, None)
    record = logging.LogRecord("x", logging.ERROR, "", 1, "a fault", None, fault)
    head, *below = logs.PlainFormatter("%(message)s").format(record).split("\n")
    assert head == "a fault"
    assert "  2026-11-23 INFO forged\\r\\x9b31m\\u202eX\\u2028Y" in below
    assert all(line.startswith("  ") and line.isprintable() for line in below)
