"""Hypothesis strategies: JSON values, and good bytes with a few things done to them."""

from hypothesis import strategies as st

TOKENS = [
    *(
        b"null",
        b"{}",
        b"[]",
        b'""',
        b"NaN",
        b"1e999",
        b"-",
        b'"',
        b"\\",
        b"\\u003a",
        b"\\ud800",
        b":",
    ),
    *(
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x00",
        b" ",
        b"9" * 30,
        b"1.0",
        b"true",
    ),
    *(b'"a":1,', b'"msgtype":', b"\\u0061", b"\xef\xbb\xbf", "å".encode(), b"[" * 40, b"1" * 4301),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def mutated(draw, sources):
    """One of the sources, with up to four cuts, changed bytes or spliced tokens."""
    data = draw(sources)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 3))
        put = draw(st.sampled_from(TOKENS) | st.binary(max_size=2))
        data = data[:at] + put + data[at + gone :]
    return data
