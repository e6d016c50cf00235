import json

import pytest

from colonist_protocol import codec
from tests.vectors.cases import bytes_of, check_refused, load, text_of

VECTORS = load("codec")


@pytest.mark.parametrize("text", VECTORS["accepted"], ids=lambda text: text[:20])
def test_strict_json_is_read(text):
    assert codec.scan(text.encode()) == json.loads(text)


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case.get("text", "")[:20])
def test_anything_else_is_refused(case):
    check_refused(case, lambda: codec.scan(bytes_of(case)))


@pytest.mark.parametrize("case", VECTORS["written"], ids=lambda case: case["text"])
def test_json_is_written_to_the_byte(case):
    assert codec.encode(case["value"]).decode() == case["text"]
    assert codec.scan(case["text"].encode()) == case["value"]


@pytest.mark.parametrize("case", VECTORS["base64"], ids=lambda case: case["text"][:20])
def test_base64_is_read_and_written(case):
    assert codec.to_base64(bytes.fromhex(case["hex"])) == case["text"]
    assert codec.from_base64(case["text"]).hex() == case["hex"]


@pytest.mark.parametrize("case", VECTORS["bad_base64"], ids=lambda case: case["text"])
def test_other_base64_is_refused(case):
    check_refused(case, lambda: codec.from_base64(text_of(case)))
