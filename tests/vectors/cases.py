"""The files of protocol/vectors, and the checks that all of them share."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colonist_protocol.errors import ColonistError

FOLDER = Path(__file__).resolve().parents[2] / "protocol" / "vectors"


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def text_of(case: dict[str, Any]) -> str:
    return case["text"]


def bytes_of(case: dict[str, Any]) -> bytes:
    return case["text"].encode() if "text" in case else base64.b64decode(case["base64"])


def check_refused(case: dict[str, Any], call: Callable[[], object]) -> None:
    with pytest.raises(ColonistError) as caught:
        call()
    assert caught.value.code == case["code"], (case["why"], str(caught.value))
    assert str(caught.value)
