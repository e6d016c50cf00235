#!/usr/bin/env python3
"""Write protocol/vectors/*.json: the bytes that CPython and MicroPython must both reproduce.

    .venv/bin/python scripts/make_vectors.py

Nothing in here is random, so a second run writes the same files; a test says that they are fresh.
What is good is made by colonist_protocol (and held against the protocol document and against
pycolonies by the tests); the code of what is bad is written by hand in scripts/vectors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.vectors import (  # noqa: E402 - found by the line above
    claims,
    codec,
    envelope,
    evidence,
    identity,
    messages,
    sealing,
    words,
)

FOLDER = ROOT / "protocol" / "vectors"


def files() -> dict[str, str]:
    """The text of each file."""
    made = {
        "claims.json": claims.vectors(),
        "codec.json": codec.vectors(),
        "envelope.json": envelope.vectors(),
        "evidence.json": evidence.vectors(),
        "identity.json": identity.vectors(),
        "messages.json": messages.vectors(),
        "names.json": words.name_vectors(),
        "sealing.json": sealing.vectors(),
        "times.json": words.time_vectors(),
        "topics.json": words.topic_vectors(),
        "units.json": words.unit_vectors(),
    }
    return {name: json.dumps(value, indent=1) + "\n" for name, value in made.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in files().items():
        (FOLDER / name).write_text(text)
