from scripts import make_vectors
from tests.vectors.cases import FOLDER


def test_vectors_are_what_the_script_makes():
    made = make_vectors.files()
    assert made == {name: (FOLDER / name).read_text() for name in made}


def test_no_vector_is_left_over():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(make_vectors.files())
