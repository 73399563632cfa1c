"""Span times keep their nanoseconds, of which Delta tables have the last three digits in columns of their own."""

import operator
import random
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.types import PARTITION_DATE, stored_schema
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.tables import NANOS, OTEL_SPANS
from tests.fakes.telemetry_rows import NOON, NOON_NS, span_rows
from tests.unit.engine.conftest import asking

SPANS = OTEL_SPANS.name
WHOLE = pa.schema({"start_time": pa.timestamp("ns", "UTC")})
HOUR_NS = 3600 * 10**9
SIGNS = {"<": operator.lt, "<=": operator.le, "=": operator.eq, ">=": operator.ge, ">": operator.gt}


def spans(*times, process_id="process"):
    """Return spans that begin and end at so many nanoseconds after noon."""
    rows = span_rows(*map(str, range(len(times))), process_id=process_id).to_pylist()
    for row, (begin, end) in zip(rows, times, strict=True):
        row |= {"start_time": NOON_NS + begin, "end_time": NOON_NS + end, "duration": end - begin}
    return pa.Table.from_pylist(rows, schema=OTEL_SPANS.schema)


def shifted(rows):
    """Return times as nanoseconds after noon, in order."""
    columns = [(rows.column(name).cast(pa.int64()).to_numpy() - NOON_NS).tolist() for name in rows.column_names]
    return sorted(zip(*columns, strict=True))


def sql_of(nanoseconds):
    whole, rest = divmod(nanoseconds, 1000)
    return f"TIMESTAMP '{NOON + timedelta(microseconds=whole):%Y-%m-%dT%H:%M:%S.%f}{rest:03}Z'"


def lake_of(folder, parts):
    """Return a lake with a commit for each part."""
    storage = Storage(folder / "lake")
    writer = LakeWriter(storage, interval_seconds=0)
    try:
        for part in parts:
            assert writer.append(SPANS, part).result() == part.num_rows
    finally:
        writer.close()
    return storage


@pytest.fixture(scope="module")
def times():
    """Times of three hours, most of which are within a microsecond of others."""
    chance = random.Random(29)
    begins = [hour * HOUR_NS + chance.randrange(-3000, 3000) for hour in (0, 1, 5) for _ in range(80)]
    return [(begin, begin + chance.choice((0, 1, 999, 1000, chance.randrange(2000)))) for begin in begins]


@pytest.fixture(scope="module", params=["files", "one file", "filtered"])
def ask(request, tmp_path_factory, times):
    storage = lake_of(tmp_path_factory.mktemp("spans"), [spans(*times[at::4]) for at in range(4)])
    if request.param == "one file":
        optimize(storage, SPANS)
    with asking(Lake(storage)) as asker:
        yield asker.seeing({SPANS: ["exe = 'exe'"]}) if request.param == "filtered" else asker


FROM = f"SELECT start_time, end_time FROM {SPANS}"


def test_spans_are_as_long_as_their_duration(ask, times):
    rows = ask.table(f"{FROM} WHERE arrow_cast(end_time - start_time, 'Int64') = duration")

    assert shifted(rows) == sorted(times)


@pytest.mark.parametrize("sign", SIGNS)
def test_comparisons_of_times_are_exact(ask, times, sign):
    compares = SIGNS[sign]
    for bound in [times[3][0], times[90][0] + 1, times[200][0] // 1000 * 1000, HOUR_NS, -HOUR_NS]:
        found = {
            name: shifted(ask.table(f"{FROM} WHERE {condition}"))
            for name, condition in {
                "start": f"start_time {sign} {sql_of(bound)}",
                "end": f"{sql_of(bound)} {sign} end_time",
                "barrier": f"start_time {sign} {sql_of(bound)} AND CAST(name AS INT) >= 0",
            }.items()
        }
        assert found["start"] == found["barrier"] == sorted(one for one in times if compares(one[0], bound))
        assert found["end"] == sorted(one for one in times if compares(bound, one[1]))


def test_lists_intervals_and_units_of_times_are_exact(ask, times):
    low, high = sorted((times[100][0], times[130][0]))
    within = sorted(one for one in times if low <= one[0] <= high)
    listed = sorted(one for one in times if one[0] in {low, high, low + 1})
    of_hour = sorted(one for one in times if HOUR_NS <= one[0] < 2 * HOUR_NS)
    names = ", ".join(map(sql_of, (low, high, low + 1)))

    assert shifted(ask.table(f"{FROM} WHERE start_time BETWEEN {sql_of(low)} AND {sql_of(high)}")) == within
    assert shifted(ask.table(f"{FROM} WHERE start_time IN ({names})")) == listed
    assert shifted(ask.table(f"{FROM} WHERE date_trunc('hour', start_time) = {sql_of(HOUR_NS)}")) == of_hour
    assert all((within, listed, of_hour))


@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_the_first_rows_in_an_order_are_the_first_by_nanoseconds(ask, times, order):
    for column, name in enumerate(("start_time", "end_time")):
        expected = sorted((one[column] for one in times), reverse=order == "DESC")
        for limit in (1, 7, 81):
            rows = ask.table(f"SELECT {name} FROM {SPANS} ORDER BY {name} {order} LIMIT {limit}")
            assert [one + NOON_NS for one in expected[:limit]] == rows.column(0).cast(pa.int64()).to_pylist()


def test_the_earliest_and_latest_times_and_distinct_ones_are_exact(ask, times):
    rows = ask.table(
        f"SELECT min(start_time) AS a, max(end_time) AS b, max(start_time) AS c, min(end_time) AS d FROM {SPANS}"
    )
    begins, ends = zip(*times, strict=True)

    assert shifted(rows) == [(min(begins), max(ends), max(begins), min(ends))]
    assert ask.rows(f"SELECT count(DISTINCT start_time) AS n FROM {SPANS}") == [{"n": len({*begins})}]


def test_spans_are_joined_by_nanoseconds(ask, times):
    pairs = ask.rows(f"SELECT count(*) AS n FROM {SPANS} a JOIN {SPANS} b ON a.start_time = b.end_time")
    within = ask.rows(
        f"SELECT count(*) AS n FROM {SPANS} a JOIN {SPANS} b "
        "ON a.start_time >= b.start_time AND a.end_time <= b.end_time"
    )

    assert pairs == [{"n": sum(one[0] == other[1] for one in times for other in times)}]
    assert within == [{"n": sum(one[0] >= other[0] and one[1] <= other[1] for one in times for other in times)}]


def test_a_time_range_is_exact(ask, times):
    for begin, end in [(-1, 1), (HOUR_NS // 1000, HOUR_NS // 1000), (-9999, HOUR_NS // 1000 + 2), (3, 10**9)]:
        first, last = (NOON + timedelta(microseconds=one) for one in (begin, end))
        rows = ask.table(FROM, time_range=TimeRange(begin=first, end=last))
        assert shifted(rows) == sorted(one for one in times if one[0] <= end * 1000 and one[1] >= begin * 1000)


def test_only_files_in_which_times_may_be_are_read(tmp_path, times):
    parts = [spans((hour * HOUR_NS + 7, hour * HOUR_NS + 9)) for hour in range(4)]
    storage = lake_of(tmp_path, parts)
    with asking(Lake(storage)) as ask:
        for file in Lake(storage).snapshot(SPANS)[-1].files:
            (begins,) = shifted(pq.read_table(file.path, columns=["start_time"]).cast(WHOLE))
            if begins[0] != 2 * HOUR_NS:
                Path(file.path).unlink()
        for condition in (
            f"start_time = {sql_of(2 * HOUR_NS + 7)}",
            f"end_time > {sql_of(2 * HOUR_NS + 8)} AND start_time < {sql_of(2 * HOUR_NS + 8)}",
        ):
            assert shifted(ask.table(f"{FROM} WHERE {condition}")) == [(2 * HOUR_NS + 7, 2 * HOUR_NS + 9)]
        with pytest.raises(MicromegasError):
            ask.rows(FROM)


def test_a_condition_of_a_role_is_about_nanoseconds(tmp_path):
    storage = lake_of(tmp_path, [spans((0, 5), (499, 5), (500, 5), (501, 1001))])
    with asking(Lake(storage)) as asker:
        ask = asker.seeing({SPANS: [f"start_time < {sql_of(500)}"]})
        for more in ("", "WHERE CAST(name AS INT) >= 0", "WHERE end_time < TIMESTAMP '9999-12-31'"):
            found = ask.rows(f"SELECT name FROM {SPANS} {more} ORDER BY name")
            assert found == [{"name": "0"}, {"name": "1"}]


def test_a_statement_with_a_time_that_nanoseconds_cannot_hold_counts_microseconds(ask, times):
    rows = ask.table(f"{FROM} WHERE end_time < TIMESTAMP '9999-12-31' AND start_time > '0001-01-01'")

    assert shifted(rows) == sorted(tuple(one // 1000 * 1000 for one in pair) for pair in times)
    assert rows.schema.types == [pa.timestamp("ns", "+00:00")] * 2


def test_the_columns_of_nanoseconds_are_in_files_only(tmp_path):
    storage = lake_of(tmp_path, [spans((1, 1002))])
    with asking(Lake(storage)) as ask:
        assert ask.table(f"SELECT * FROM {SPANS}").schema.names == OTEL_SPANS.schema.names
        assert dict(ask.engine.tables(ask.caller))[SPANS].names == OTEL_SPANS.schema.names
        reads = ask.plan(f"SELECT name FROM {SPANS} WHERE start_time > now()").reads
        in_query = ask.plan(
            f"SELECT (SELECT max(start_time) FROM {SPANS} s WHERE s.name = o.name) FROM {SPANS} o"
        ).reads
        with pytest.raises(MicromegasError):
            ask.rows(f"SELECT start_time{NANOS} FROM {SPANS}")
    assert {name: sorted(found) for name, found in reads.items()} == {SPANS: ["name", "start_time"]}
    assert {name: sorted(found) for name, found in in_query.items()} == {SPANS: ["name", "start_time"]}
    stored = DeltaTable(storage.child_uri(SPANS)).to_pyarrow_table()
    assert stored.column(f"start_time{NANOS}").to_pylist() == [1]
    assert stored.column(f"end_time{NANOS}").to_pylist() == [2]
    assert [one["name"] for one in Tables(storage).describe(SPANS)["columns"]] == OTEL_SPANS.schema.names


def test_times_before_1970_keep_their_nanoseconds(tmp_path):
    storage = lake_of(tmp_path, [spans((-NOON_NS - 1500, -NOON_NS - 1))])
    with asking(Lake(storage)) as ask:
        assert shifted(ask.table(FROM)) == [(-NOON_NS - 1500, -NOON_NS - 1)]


def older_lake(folder, rows):
    """Return a lake that a version without columns of nanoseconds made, with rows in microseconds."""
    storage = Storage(folder / "lake")
    columns = stored_schema(OTEL_SPANS.schema).append(pa.field(PARTITION_DATE, pa.date32()))
    Tables(storage).add(SPANS, columns, partition_by=(PARTITION_DATE,))
    dates = rows.column("start_time").cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.date32(), safe=False)
    old = rows.append_column(PARTITION_DATE, dates).cast(columns, safe=False)
    write_deltalake(storage.child_uri(SPANS), old, mode="append")
    return storage


def test_an_older_table_gains_the_columns_at_its_first_write(tmp_path):
    storage = older_lake(tmp_path, spans((1_001, 3_999)))
    other, writer = (LakeWriter(storage, interval_seconds=0) for _ in range(2))
    try:
        with asking(Lake(storage)) as ask:
            assert shifted(ask.table(FROM)) == [(1_000, 3_000)]
            for number, one in enumerate((writer, other, writer)):
                one.append(SPANS, spans((5_001 + number, 7_999))).result()
            expected = [(1_000, 3_000), *((5_001 + number, 7_999) for number in range(3))]
            assert shifted(ask.table(FROM)) == expected
            assert shifted(ask.table(f"{FROM} WHERE start_time <= {sql_of(5_001)}")) == expected[:2]
            optimize(storage, SPANS)
            assert shifted(ask.table(FROM)) == expected
    finally:
        writer.close()
        other.close()
    history = [one["operation"] for one in DeltaTable(storage.child_uri(SPANS)).history()]
    assert history.count("ADD COLUMN") == 1


@pytest.mark.parametrize(
    "condition",
    [
        f"start_time < {sql_of(500)}",
        f'{sql_of(501)} = "start_time" OR END_TIME > {sql_of(1_999)}',
        f"start_time BETWEEN {sql_of(-1)} AND {sql_of(499)} AND name <> 'start_time = end_time'",
        "arrow_cast(end_time - start_time, 'Int64') >= 500 -- end_time",
        "start_time >= end_time",
        f"date_trunc('second', start_time) = {sql_of(0)} AND start_time > {sql_of(1_000)}",
    ],
)
def test_a_deletion_is_of_the_spans_that_a_statement_with_its_condition_shows(tmp_path, condition):
    storage = lake_of(tmp_path, [spans((0, 5), (499, 600), (500, 500)), spans((501, 1001), (1_500, 2_000))])
    with asking(Lake(storage)) as ask:
        every, named = (shifted(ask.table(f"{FROM} WHERE {one}")) for one in ("true", f"{condition}\n"))
        assert 0 < len(named) < len(every)
        assert Tables(storage).delete(SPANS, condition).rows == len(named)
        assert shifted(ask.table(FROM)) == sorted({*every}.difference(named))


def test_only_row_groups_in_which_times_may_be_are_read(tmp_path):
    storage = lake_of(tmp_path, [spans((-HOUR_NS, 0)), spans(*((at * 10_007, at * 10_007 + 5) for at in range(400)))])
    with asking(Lake(storage)) as ask:
        file = Path(max(Lake(storage).snapshot(SPANS)[-1].files, key=lambda one: Path(one.path).stat().st_size).path)
        pq.write_table(pq.read_table(file), file, row_group_size=100)
        metadata, content = pq.read_metadata(file), bytearray(file.read_bytes())
        for group in (0, 1, 3):
            for at in range(metadata.num_columns):
                column = metadata.row_group(group).column(at)
                begin = column.dictionary_page_offset or column.data_page_offset
                content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
        file.write_bytes(content)
        low, high = (at * 10_007 for at in (200, 299))
        for condition in (
            f"start_time BETWEEN {sql_of(low)} AND {sql_of(high)}",
            f"start_time > {sql_of(low - 1)} AND end_time <= {sql_of(high + 5)} AND name <> ''",
            f"(start_time = {sql_of(low)} OR start_time IN ({sql_of(low)}, {sql_of(high)}))",
        ):
            found = shifted(ask.table(f"{FROM} WHERE {condition}"))
            assert (found[0], found[-1]) == ((low, low + 5), (high, high + 5))
        with pytest.raises(MicromegasError):
            ask.rows(FROM)
