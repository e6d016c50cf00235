import pytest

from colonist_protocol import errors
from scripts import make_error_reference

CLASSES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, errors.ColonistError)
]


def test_every_kind_has_a_code_of_its_own():
    codes = [each.code for each in CLASSES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_kind_says_what_it_means(kind):
    assert kind.__name__.endswith("Error")
    assert kind.__doc__
    assert 400 <= kind.status < 600
    assert kind.code.replace("_", "").isalnum()
    assert kind.code == kind.code.lower()


def test_bad_input_is_never_our_fault():
    for kind in CLASSES:
        if issubclass(kind, (errors.MalformedError, errors.SignatureError)):
            assert kind.status in (400, 403)


def test_the_reference_page_is_fresh():
    assert make_error_reference.PAGE.read_text() == make_error_reference.page()


@pytest.mark.parametrize("kind", CLASSES)
def test_the_reference_page_has_every_code(kind):
    assert make_error_reference.page().count(f"| `{kind.code}` |") == 1
