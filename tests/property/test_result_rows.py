"""The grid's rows are what plain Python makes of the values: sorted, filtered, summed up, copied and written."""

import csv
import io
import math
import operator
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from functools import partial
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from micromegas_jupyter.notebook.formats import NANOSECONDS, Kind, column_kind
from micromegas_jupyter.notebook.results.view import EXPORT_FORMATS, RowQuery, RowsView
from tests.property.arrow_tables import tables

SECOND = 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BERLIN_AUTUMN = 1792886400  # 2026-10-25 00:00 UTC: an hour before clocks go back from 3 to 2
COMPARISONS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip

_INTEGERS = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
}
_FLOATS = {
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
}
_DECIMALS = {
    pa.decimal32(9, 2): st.integers(-(10**9) + 1, 10**9 - 1),
    pa.decimal128(38, 10): st.integers(-(10**38) + 1, 10**38 - 1),
    pa.decimal256(60, 20): st.integers(-(10**60) + 1, 10**60 - 1),
}
_TEXTS = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
_words = st.text("abAB ", max_size=3)


def some(values, rows):
    # A few values, so that many are equal.
    return st.lists(values, min_size=1, max_size=8).flatmap(
        lambda few: st.lists(st.none() | st.sampled_from(few), min_size=rows, max_size=rows)
    )


def chunked(parts, kind):
    return pa.chunked_array([pa.array(part, kind) for part in parts], kind)


@st.composite
def number_columns(draw, rows):
    """Return a column of numbers, and the numbers."""
    kinds = st.sampled_from([*_INTEGERS, *_FLOATS, *_DECIMALS])
    kind = draw(kinds)
    if kind in _DECIMALS:
        scaled = draw(some(_DECIMALS[kind], rows))
        numbers = [None if each is None else exact(each, kind.scale) for each in scaled]
    else:
        numbers = draw(some((_INTEGERS | _FLOATS)[kind], rows))
    middle = draw(st.integers(0, rows))
    return chunked([numbers[:middle], numbers[middle:]], kind), numbers


def exact(scaled, scale):
    return Decimal(f"{scaled}e-{scale}")


@st.composite
def text_columns(draw, rows):
    """Return a column of texts, with dictionaries that differ, and the texts."""
    texts, kind = draw(some(_words, rows)), draw(st.sampled_from(_TEXTS))
    middle = draw(st.integers(0, rows))
    if not pa.types.is_dictionary(kind):
        return chunked([texts[:middle], texts[middle:]], kind), texts
    # A dictionary may hold null, and one text twice.
    arrays = [
        pa.DictionaryArray.from_arrays(
            pa.array(range(1, len(part) + 1), pa.int32()), pa.array(["b", *part], pa.string())
        )
        for part in (texts[:middle], texts[middle:])
    ]
    return pa.chunked_array(arrays, kind), texts


@st.composite
def time_columns(draw, rows):
    """Return a column of times in a zone, and their nanoseconds since 1970."""
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    zone = draw(st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York"]))
    size = NANOSECONDS[unit]
    near = st.integers(0, 4 * 3600 * SECOND).map(lambda distance: BERLIN_AUTUMN * SECOND + distance)
    far = st.integers(-(60 * 366 * 86_400 * SECOND), 200 * 366 * 86_400 * SECOND)
    steps = draw(some((near | far).map(lambda time: time // size), rows))
    column = pa.chunked_array([pa.array(steps, pa.int64())]).cast(pa.timestamp(unit, zone))
    return column, [None if step is None else step * size for step in steps]


@st.composite
def plain_columns(draw, rows):
    """Return a column that can be sorted, and its values in Python."""
    match draw(st.integers(0, 4)):
        case 0:
            return draw(number_columns(rows))
        case 1:
            return draw(text_columns(rows))
        case 2:
            return draw(time_columns(rows))
        case 3:
            values = draw(some(st.booleans(), rows))
            return chunked([values], pa.bool_()), values
        case _:
            values = draw(some(st.binary(max_size=3), rows))
            return chunked([values], draw(st.sampled_from([pa.binary(), pa.binary_view(), pa.large_binary()]))), values


def sorted_places(places, values, *, descending):
    def rest(place):
        return 2 if values[place] is None else int(is_nan(values[place]))

    # NaN, and then null, at the end of either direction.
    plain = [place for place in places if rest(place) == 0]
    plain.sort(key=lambda place: values[place], reverse=descending)
    return plain + sorted((place for place in places if rest(place)), key=rest)


def places_of(view, order):
    return view.rows(order, 0, view.table.num_rows).column(-1).to_pylist()


@given(st.data(), st.integers(0, 12))
def test_rows_are_sorted_by_several_columns_with_nulls_at_the_end(data, rows):
    columns = data.draw(st.lists(plain_columns(rows), min_size=1, max_size=3))
    sort = data.draw(st.lists(st.tuples(st.integers(0, len(columns) - 1), st.booleans()), min_size=1, max_size=3))
    view = RowsView(pa.table([*(column for column, _ in columns), range(rows)], names=["a"] * len(columns) + ["place"]))

    expected = list(range(rows))
    for index, descending in reversed(sort):
        expected = sorted_places(expected, columns[index][1], descending=descending)
    assert places_of(view, RowQuery(sort=tuple(sort))) == expected


def filtered(column, typed):
    view = RowsView(pa.table({"a": column, "place": range(len(column))}))
    return places_of(view, RowQuery(filters=((0, typed),)))


def matching(values, is_match):
    return [place for place, value in enumerate(values) if value is not None and is_match(value)]


@given(st.data(), st.integers(1, 12))
def test_numbers_are_compared_without_rounding(data, rows):
    column, numbers = data.draw(number_columns(rows))
    if pa.types.is_floating(column.type):
        bound = data.draw(_FLOATS[column.type])
        typed, bound = repr(bound), float(bound)
    else:
        beside = st.sampled_from([Decimal(0), Decimal(1), Decimal("-0.5"), Decimal("1e-25"), Decimal("1e70")])
        near = st.sampled_from([Decimal(0), *(Decimal(each) for each in numbers if each is not None)])
        bound = add(data.draw(near), data.draw(beside))
        typed = f"{bound:f}"
    sign = data.draw(st.sampled_from(list(COMPARISONS)))
    if is_nan(bound):  # compared with nothing, only found
        sign = data.draw(st.sampled_from(["=", "!="]))

    def is_match(value):
        if is_nan(bound):
            return is_nan(value) is (sign == "=")
        return COMPARISONS[sign](value, bound)

    assert filtered(column, f"{sign} {typed}") == matching(numbers, is_match)
    if sign == "=":
        assert filtered(column, typed) == filtered(column, f"{typed}..{typed}") == matching(numbers, is_match)
        assert filtered(column, f"!{typed}") == filtered(column, f"!= {typed}")
        assert filtered(column, f"{typed}..<{typed}") == []


def add(one, other):
    with localcontext(prec=200):
        return one + other


@given(st.data(), st.integers(1, 12))
def test_times_are_compared_as_they_are_shown_and_with_an_offset_as_instants(data, rows):
    column, instants = data.draw(time_columns(rows))
    zone = ZoneInfo(column.type.tz or "UTC")
    shown = [None if each is None else wall_clock(each, zone) for each in instants]
    is_instant = data.draw(st.booleans())
    values = instants if is_instant else shown
    bound = data.draw(st.sampled_from([BERLIN_AUTUMN * SECOND, *(each for each in values if each is not None)]))
    time = EPOCH + timedelta(seconds=bound // SECOND)
    length, typed = data.draw(
        st.sampled_from(
            [
                (60 * SECOND, f"{time:%Y-%m-%d %H:%M}"),
                (SECOND, f"{time:%Y-%m-%dT%H:%M:%S}"),
                (1, f"{time:%Y-%m-%d %H:%M:%S}.{bound % SECOND:09}"),
                *([] if is_instant else [(86_400 * SECOND, f"{time:%Y-%m-%d}")]),
            ]
        )
    )
    first = bound // length * length
    typed += "Z" if is_instant else ""
    is_match = {
        "<": lambda value: value < first,
        "<=": lambda value: value < first + length,
        ">": lambda value: value >= first + length,
        ">=": lambda value: value >= first,
        "=": lambda value: first <= value < first + length,
        "!=": lambda value: not first <= value < first + length,
    }

    for sign, expected in is_match.items():
        assert filtered(column, f"{sign} {typed}") == matching(values, expected)
    assert filtered(column, f"{typed}..{typed}") == matching(values, is_match["="])
    assert filtered(column, f"{typed}..<{typed}") == []
    assert filtered(column, f"!{typed}..{typed}") == matching(values, is_match["!="])


def wall_clock(instant, zone):
    shown = (EPOCH + timedelta(seconds=instant // SECOND)).astimezone(zone).replace(tzinfo=UTC)
    return ((shown - EPOCH) // timedelta(seconds=1)) * SECOND + instant % SECOND


@given(st.data(), st.integers(1, 12), st.text("abAB", min_size=1, max_size=2))
def test_texts_are_searched_and_compared_whatever_holds_them(data, rows, typed):
    column, texts = data.draw(text_columns(rows))

    assert filtered(column, typed) == matching(texts, lambda text: typed.lower() in text.lower())
    assert filtered(column, f"!{typed}") == matching(texts, lambda text: typed.lower() not in text.lower())
    assert filtered(column, f"/^{typed}/") == matching(texts, lambda text: text.lower().startswith(typed.lower()))
    assert filtered(column, f"!/^{typed}/") == matching(texts, lambda text: not text.lower().startswith(typed.lower()))
    assert filtered(column, f"{typed}..bA") == matching(texts, lambda text: typed <= text <= "bA")
    assert filtered(column, f"'{typed}'..<'b A'") == matching(texts, lambda text: typed <= text < "b A")
    for sign, compare in COMPARISONS.items():
        assert filtered(column, f"{sign} '{typed}'") == matching(texts, partial(flipped, compare, typed))
    assert filtered(column, "=") == [place for place, text in enumerate(texts) if text is None]
    assert filtered(column, "!=") == matching(texts, lambda _: True)


def flipped(compare, typed, text):
    return compare(text, typed)


@given(st.data(), st.integers(0, 30))
def test_statistics_count_each_value_once(data, rows):
    column, values = data.draw(plain_columns(rows))
    view = RowsView(pa.table({"a": column}))
    known, form = view.spread(0), view.format_of(0)

    def text(value):
        return form.texts(pa.chunked_array([pa.array([value], column.type)]))[0]

    there = [value for value in values if value is not None and not is_nan(value)]
    if form.kind in ("number", "time"):
        shown = column.filter(pa.array([value is not None and not is_nan(value) for value in values], pa.bool_()))
        texts = form.texts(shown)
        ends = (texts[there.index(min(there))], texts[there.index(max(there))]) if there else (None, None)
        assert (known.min, known.max) == ends
        assert not known.bars or sum(known.bars) == len(there)
        assert len(known.bins) == (len(known.bars) + 1 if known.bars else 0)
        assert known.distinct is None
    else:
        counts = Counter(there)
        assert known.distinct == len(counts)
        assert [count for _, count, _ in known.top] == sorted(counts.values(), reverse=True)[:5]
        assert set(known.top) <= {(text(value), count, count) for value, count in counts.items()}
        assert view.table.column(0).null_count + sum(counts.values()) == rows


@given(st.data(), st.integers(1, 30))
def test_a_bar_and_a_top_value_select_the_rows_that_they_count(data, rows):
    (column, _), (other, _) = data.draw(plain_columns(rows)), data.draw(text_columns(rows))
    view = RowsView(pa.table({"a": column, "b": other}))
    order = RowQuery(((1, "a"),))
    known = view.spread(0, order)

    def count(typed):
        return view.count(RowQuery(((0, typed), *order.filters)) if typed else order)

    for bar, expected in enumerate(known.matching):
        assert count(view.bars_filter(0, bar, bar)) == expected
    if len(known.bars) > 1:
        assert count(view.bars_filter(0, 1, 0)) == sum(known.matching[:2])
    for place, (_, expected, _) in enumerate(known.top):
        if column_kind(column.type) is not Kind.BINARY:
            assert count(view.top_filter(0, place, order)) == expected


def is_nan(value):
    return isinstance(value, float) and math.isnan(value)


@given(st.data(), st.integers(0, 12))
def test_a_file_holds_the_rows_that_match_in_their_order(data, rows):
    columns = data.draw(st.lists(plain_columns(rows), min_size=1, max_size=3))
    table = pa.table([column for column, _ in columns], names=[f"column {place}" for place in range(len(columns))])
    view = RowsView(table)
    order = RowQuery(sort=((0, True),))
    expected = view.rows(order, 0, rows)
    written = {each: io.BytesIO() for each in EXPORT_FORMATS}
    for file_format, target in written.items():
        view.write(order, target, file_format=file_format, columns=range(len(columns)))

    arrow = pa.ipc.open_file(written["arrow"].getvalue()).read_all()
    assert arrow.schema == table.schema
    assert values_of(arrow) == values_of(expected)
    parquet = pq.read_table(io.BytesIO(written["parquet"].getvalue()))
    assert values_of(parquet) == values_of(expected)
    lines = list(csv.reader(io.StringIO(written["csv"].getvalue().decode(), newline="")))
    assert lines[0] == table.column_names
    copied = view.copied(order, rows=(0, max(rows - 1, 0)), columns=range(len(columns)), header=True)
    assert len(lines) == rows + 1
    assert copied.split("\n")[0].split("\t") == table.column_names
    for index, (column, _) in enumerate(columns):
        if pa.types.is_string(column.type):
            assert [(line or [""])[index] for line in lines[1:]] == [
                text or "" for text in expected.column(index).to_pylist()
            ]


def values_of(table):
    # By what they are, since NaN is not equal to itself.
    return [[repr(value) for value in column.to_pylist()] for column in table.columns]


@given(tables(), st.booleans())
def test_any_table_can_be_looked_at_and_what_it_cannot_do_is_refused(table, descending):
    view = RowsView(table)
    columns = view.columns(500)
    order = RowQuery(sort=tuple((index, descending) for index, each in enumerate(columns) if each["sortable"])[:3])

    texts = view.texts(order, first=0, count=100, columns=table.num_columns)

    assert [len(column) for column in texts] == [table.num_rows] * table.num_columns
    assert all(text is None or (len(text) <= 200 and "\n" not in text) for column in texts for text in column)
    for index in range(table.num_columns):
        assert sum(text is None for text in texts[index]) == columns[index]["nulls"]
        view.spread(index)
        if table.num_rows:
            view.value(order, 0, index)
    if table.num_columns:
        view.copied(order, rows=(0, 30), columns=range(table.num_columns), header=True)
