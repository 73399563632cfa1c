"""Arrow tables of any type and content, also such as Arrow's own rules forbid: a server may send them."""

import pyarrow as pa
from hypothesis import strategies as st

_INT64 = st.integers(-(2**63), 2**63 - 1)
_UNITS = ("s", "ms", "us", "ns")
_ZONES = (None, "UTC", "+00:00", "Europe/Berlin", "-09:30", "Nobody/Knows", "<b>")
# Pieces of markup beside any text, so that an escape that is missing is found soon.
MARKUP = (
    "<script>", "</script>", "</td>", "<img src=x onerror=alert(1)>", "&lt;", '"', "'", "<!--", "\x1b[2J", "\u2028",
)  # fmt: skip

texts = st.lists(
    st.sampled_from(MARKUP) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=4
).map("".join)  # fmt: skip
_long_texts = st.tuples(texts, st.integers(1, 2_000)).map(lambda pair: pair[0] * pair[1])


def _views():
    """Return types whose values are 64-bit numbers, of which not every one is a value that can be written."""
    timestamps = st.builds(pa.timestamp, st.sampled_from(_UNITS), st.sampled_from(_ZONES))
    durations = st.builds(pa.duration, st.sampled_from(_UNITS))
    others = st.sampled_from([pa.int64(), pa.uint64(), pa.float64(), pa.date64(), pa.time64("us"), pa.time64("ns")])
    return timestamps | durations | others


@st.composite
def _columns(draw, rows):  # noqa: PLR0912 - a kind of column each
    def some(values):
        return draw(st.lists(st.none() | values, min_size=rows, max_size=rows))

    match draw(st.integers(0, 12)):
        case 0:
            column = pa.array(some(_INT64), pa.int64()).view(draw(_views()))
        case 1:
            kinds = (pa.string(), pa.large_string(), pa.string_view())
            column = pa.array(some(texts | _long_texts), draw(st.sampled_from(kinds)))
        case 2:
            column = pa.array(some(texts), pa.string()).dictionary_encode()
        case 3:
            no_text = pa.array(some(st.binary(max_size=30)), pa.binary()).view(pa.string())
            column = draw(st.sampled_from([no_text, pa.StructArray.from_arrays([no_text], names=["<i>"])]))
        case 4:
            column = pa.array(some(st.binary(max_size=100)), pa.binary())
        case 5:
            column = pa.array(some(st.floats(width=16)), pa.float16())
        case 6:
            column = pa.array(some(st.decimals(-999, 999, places=2)), pa.decimal128(5, 2))
        case 7:
            times = pa.array(draw(st.lists(_INT64, min_size=rows, max_size=rows)), pa.int64()).view(draw(_views()))
            column = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), times)
        case 8:
            column = pa.array(some(st.floats()), pa.float64())
        case 9:
            values = some(texts)
            column = pa.RunEndEncodedArray.from_arrays(
                pa.array(range(1, rows + 1), pa.int32()), pa.array(values, pa.string())
            )
        case 10:
            column = pa.array(some(st.binary(min_size=16, max_size=16)), pa.uuid())
        case 11:
            pairs = st.lists(st.tuples(texts, st.none() | texts), max_size=3)
            column = pa.array(some(pairs), pa.map_(pa.string(), pa.string()))
        case _:
            kinds = (pa.null(), pa.month_day_nano_interval(), pa.bool_(), pa.date32(), pa.decimal32(5, 2))
            column = pa.nulls(rows, draw(st.sampled_from(kinds)))
    return column


@st.composite
def tables(draw, max_rows=30):
    """Return tables of up to four columns, whose names may be equal, empty or markup."""
    rows = draw(st.integers(0, max_rows))
    columns = draw(st.lists(_columns(rows), max_size=4))
    return pa.Table.from_arrays(columns, names=[draw(texts) for _ in columns])
