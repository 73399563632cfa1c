"""Views that are computed from tables, and `view_instance`: their rows, their files, and what a caller sees of them."""

import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.engine.calls import lift_calls, with_stand_ins
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.engine.security import check_role_conditions
from micromegas_jupyter.errors import (
    ConfigurationError,
    InvalidStatement,
    MicromegasError,
    StatementRefused,
    Unavailable,
)
from micromegas_jupyter.lake.snapshot import _defined_schema
from micromegas_jupyter.telemetry.tables import BLOCKS, EMPTY_SETS, LOG_ENTRIES, OTEL_SPANS, PROCESSES
from tests.fakes.telemetry_rows import NOON, NOON_NS, block_rows, process_state, span_rows
from tests.unit.engine.conftest import Asker, asking

P1, P2, P3 = ("00000000-0000-4000-8000-00000000000" + digit for digit in "123")
SECOND = 10**9
VISIBLE = f"process_id = '{P1}'"


def log_rows(process_id, *seconds, level=4, msg="a message"):
    """Return entries at seconds after noon; the target is a number for the first process only."""
    columns = {
        "process_id": process_id, "stream_id": "s", "block_id": "b", "insert_time": NOON_NS, "exe": "x",
        "username": "u", "computer": "c", "target": "7" if process_id == P1 else "hidden", "level": level, "msg": msg,
    }  # fmt: skip
    schema = LOG_ENTRIES.schema
    arrays = []
    for field in schema:
        if field.name == "time":
            arrays.append(pa.array([NOON_NS + round(second * SECOND) for second in seconds], field.type))
        elif field.name in columns:
            arrays.append(pa.array([columns[field.name]] * len(seconds), field.type))
        else:
            arrays.append(_no_properties(field.type, len(seconds)))
    return pa.Table.from_arrays(arrays, schema=schema)


def _no_properties(kind, length):
    return pa.array([[] if pa.types.is_map(kind) else b"\x40\0\0\0"] * length, kind)


def stored(folder, definition, parts):
    """Return a table of the data model whose files hold these rows, as a lake's snapshot describes it."""
    schema, files, bounds = _defined_schema(definition), [], []
    first, last = definition.range_columns
    for number, rows in enumerate(parts):
        path = folder / f"{definition.name}-{number}.parquet"
        plain = pa.table(rows).cast(schema)
        pq.write_table(plain, path)
        begins, ends = (plain.column(one).cast(pa.int64()).to_pylist() for one in (first, last))
        files.append(DataFile(str(path), (), min(begins), max(ends)))
        row = {"rows": plain.num_rows}
        for column in {first, last, "process_id"}:
            values = plain.column(column).to_pylist() if column == "process_id" else [*begins, *ends]
            row |= {f"min.{column}": min(values), f"max.{column}": max(values), f"nulls.{column}": 0}
        bounds.append(row)
    return TableSnapshot(
        name=definition.name,
        schema=schema,
        files=tuple(files),
        range_columns=definition.range_columns,
        merge_sql=definition.merge_sql,
        raw_name=definition.raw_name,
        bounds=pa.Table.from_pylist(bounds),
    )


LOGS = [
    log_rows(P1, 1, 2, 59.9, 60, 100),
    log_rows(P2, 3, 61, 4000, level=2),
    log_rows(P1, 3600, level=2, msg="-7"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def tables(folder):
    return [
        stored(folder, LOG_ENTRIES, LOGS),
        stored(folder, OTEL_SPANS, [span_rows("a", "b", process_id=P1), span_rows("c", process_id=P2)]),
        stored(folder, BLOCKS, [block_rows("b1", process_id=P1), block_rows("b2", process_id=P2)]),
        stored(folder, PROCESSES, [process_state(P1, updated=5000), process_state(P2, updated=6000)]),
    ]


@pytest.fixture(scope="module")
def everything(tables):
    with asking(tables, batch_rows=8) as asker:
        yield asker


STATS = "SELECT time_bin, process_id, level, target, count FROM log_stats ORDER BY time_bin, process_id"


def _bins(rows):
    return [(round((row["time_bin"] - NOON) / timedelta(minutes=1)), row["process_id"], row["count"]) for row in rows]


def test_log_stats_counts_entries_by_minute_process_level_and_target(everything):
    found = everything.table(STATS, preserve_dictionary=True)

    assert _bins(found.to_pylist()) == [(0, P1, 3), (0, P2, 1), (1, P1, 2), (1, P2, 1), (60, P1, 1), (66, P2, 1)]
    text, time = pa.dictionary(pa.int32(), pa.utf8()), pa.timestamp("ns", "+00:00")
    assert found.schema.names == ["time_bin", "process_id", "level", "target", "count"]
    assert found.schema.types == [time, text, pa.int32(), text, pa.int64()]


@pytest.mark.parametrize(
    ("begin", "end", "bins"),
    # Whole minutes only: those that begin within the range.
    [(0, 0, [0, 0]), (1, 60, [1, 1]), (-60, 59, [0, 0]), (60, 3600, [1, 1, 60]), (3601, 3900, []), (9, 1, [])],
)
def test_a_time_range_is_about_the_minutes(everything, begin, end, bins):
    times = TimeRange(begin=NOON + timedelta(seconds=begin), end=NOON + timedelta(seconds=end))

    found = _bins(everything.rows(STATS, time_range=times))

    assert [minute for minute, _, _ in found] == bins
    assert found == [one for one in _bins(everything.rows(STATS)) if begin <= one[0] * 60 <= end]


def test_a_time_range_and_a_condition_on_minutes_read_the_files_of_these_only(tmp_path):
    hours = [log_rows(P1, 3600 * hour + 5, 3600 * hour + 1000, 3600 * hour + 3599) for hour in range(40)]
    table = stored(tmp_path, LOG_ENTRIES, hours)
    begin, end = NOON + timedelta(hours=3), NOON + timedelta(hours=4, minutes=59)
    times = TimeRange(begin=begin, end=end)
    with asking([table]) as ask:
        expected = [row for row in ask.rows(STATS) if begin <= row["time_bin"] <= end]
        for number in {*range(40)} - {3, 4, 5}:
            Path(table.files[number].path).unlink()
        assert ask.rows(STATS, time_range=times) == expected
        for condition in (
            f"time_bin BETWEEN '{begin}' AND '{end}'",
            f"time_bin < '{end + timedelta(seconds=1)}' AND '{begin}' <= time_bin",
        ):
            assert ask.rows(STATS.replace("ORDER", f"WHERE {condition} ORDER")) == expected
        with pytest.raises(Unavailable):
            ask.rows(STATS)
    assert len(expected) == 6


FAR = "SELECT count(*) AS n, sum(count) AS rows FROM log_stats"


def test_times_that_nanoseconds_cannot_hold_are_counted_too(tmp_path):
    rows = log_rows(P1, 1).cast(_defined_schema(LOG_ENTRIES))
    times = pa.array([253_402_300_799_999_999], pa.timestamp("us", "+00:00"))
    rows = rows.set_column(rows.schema.get_field_index("time"), rows.schema.field("time"), times)
    with asking([stored(tmp_path, LOG_ENTRIES, [*LOGS, rows])]) as ask:
        assert ask.rows(FAR) == [{"n": 7, "rows": 10}]


JOINED = (
    f"view_instance('log_entries', '{P1}') a JOIN view_instance('log_entries', '{P2}') b ON a.level = b.level, "
    "view_instance('blocks', 'global')"
)
INSTANCES = [
    (f"SELECT count(*) AS n FROM view_instance('log_entries', '{P1}')", 6),
    ("SELECT count(*) AS n FROM view_instance('log_entries', 'global')", 9),
    (f"SELECT count(*) AS n FROM VIEW_INSTANCE ( 'log_' || 'entries' , concat('{P1[:20]}', '{P1[20:]}') ) AS l", 6),
    (f"SELECT count(*) AS n FROM view_instance('log_entries', '{P1.upper()}') WHERE level = 2", 1),
    (f"SELECT count(*) AS n FROM view_instance('otel_spans', '{P1}')", 2),
    (f"SELECT count(*) AS n FROM view_instance('otel_spans', '{P3}')", 0),
    ("SELECT count(*) AS n FROM view_instance('processes', 'global')", 2),
    ("SELECT count(*) AS n FROM view_instance('log_stats', 'global')", 6),
    (f"SELECT count(*) AS n FROM {JOINED}", 6),
    ("SELECT count(*) AS n FROM log_entries WHERE msg = 'view_instance(''x'')'", 0),
]


@pytest.mark.parametrize(("sql", "count"), INSTANCES)
def test_an_instance_has_the_rows_of_its_process(everything, sql, count):
    assert everything.rows(sql) == [{"n": count}]


def test_a_parameter_may_name_an_instance_for_each_row_of_values(everything):
    sql = "SELECT max(process_id) AS p FROM view_instance('log_entries', {}) WHERE level < {}"
    values = pa.record_batch({"0": [P1, P2], "1": [5, 5]})

    for marks in (("$1", "$2"), ("?", "?")):
        assert everything.rows(sql.format(*marks), parameters=values) == [{"p": P1}, {"p": P2}]
        assert everything.plan(sql.format(*marks)).parameter_schema.names == ["0", "1"]
        with pytest.raises(InvalidStatement, match="parameter"):
            everything.rows(sql.format(*marks))
    with pytest.raises(InvalidStatement, match="not the ID"):
        everything.rows(sql.format("$1", "$2"), parameters=pa.record_batch({"0": ["x"], "1": [5]}))
    with pytest.raises(InvalidStatement, match="parameter"):
        everything.plan(f"SELECT * FROM view_instance($1, '{P1}')")


def test_a_time_range_and_files_are_those_of_the_table(everything, tmp_path):
    early = TimeRange(begin=NOON, end=NOON + timedelta(minutes=1))
    sql = f"SELECT count(*) AS n FROM view_instance('log_entries', '{P1}')"
    assert everything.rows(sql, time_range=early) == [{"n": 4}]

    ids = [str(uuid.UUID(int=number)) for number in range(40)]
    parts = [log_rows(one, 1, 2) for one in ids]
    table = stored(tmp_path, LOG_ENTRIES, [*parts, log_rows(P1, 1)])
    counting = "SELECT count(*) AS n FROM "
    with asking([table]) as ask:
        for sql in (f"view_instance('log_entries', '{ids[7]}')", f"log_entries WHERE process_id = '{ids[7]}'"):
            for number in {*range(40)} - {7}:
                Path(table.files[number].path).unlink(missing_ok=True)
            assert ask.rows(counting + sql) == [{"n": 2}], sql
        assert ask.seeing({"log_entries": (f"process_id = '{ids[7]}'",)}).rows(counting + "log_entries") == [{"n": 2}]
        with pytest.raises(Unavailable):
            ask.rows(counting + "view_instance('log_entries', 'global')")


SETS = {
    "thread_spans": "id:int64 parent:int64 depth:uint32 hash:uint32 begin:t end:t duration:int64 name:d target:d "
    "filename:d line:uint32",
    "async_events": "stream_id:d block_id:d time:t event_type:d span_id:int64 parent_span_id:int64 depth:uint32 "
    "hash:uint32 name:d filename:d target:d line:uint32",
    "net_spans": "process_id:d stream_id:d span_id:int64 parent_span_id:int64 depth:uint32 kind:d name:d "
    "connection_name:d is_outgoing:bool begin_bits:int64 end_bits:int64 bit_size:int64 begin_time:t end_time:t",
    "images": "process_id:d stream_id:d block_id:d insert_time:t exe:d username:d computer:d time:t name:string "
    "format:d payload_size:int64 data:binary",
}
SHORT = {"t": pa.timestamp("ns", "+00:00"), "d": pa.dictionary(pa.int32(), pa.utf8())}


@pytest.mark.parametrize("name", SETS)
def test_sets_that_nobody_sends_have_upstreams_columns_and_no_rows(everything, name):
    pairs = [column.split(":") for column in SETS[name].split()]
    expected = pa.schema(
        [
            pa.field(one, SHORT[kind] if kind in SHORT else pa.type_for_alias(kind), nullable=False)
            for one, kind in pairs
        ]
    )

    found = everything.table(f"SELECT * FROM view_instance('{name}', '{P1}')", preserve_dictionary=True)

    assert (found.schema, found.num_rows) == (expected, 0)
    assert {one.name for one in EMPTY_SETS} == set(SETS)


def test_spans_of_a_process_have_upstreams_columns_and_no_rows(everything):
    found = everything.table(f"SELECT * FROM process_spans('{P1}', 'both') WHERE depth > 1", preserve_dictionary=True)
    text = pa.dictionary(pa.int16(), pa.utf8())
    threads = everything.table(f"SELECT * FROM view_instance('thread_spans', '{P1}')", preserve_dictionary=True).schema

    first = [pa.field(name, text, nullable=False) for name in ("stream_id", "thread_name")]
    assert (found.schema, found.num_rows) == (pa.schema([*first, *threads]), 0)


REFUSED = [
    (f"process_spans('{P1}', 'some')", "doesn't support this kind", 69),
    (f"process_spans('{P1}')", "an ID and one of", 15),
    ("process_spans('x', 'both')", "not the ID of a process", 29),
    (f"perfetto_trace_chunks('{P1}', 'both')", "begin, end", 15),
    ("view_instance('log_entry', 'global')", "no view set named 'log_entry'", 29),
    ("view_instance('log_entries', 'p')", "'p' is not the ID of a process", 44),
    ("view_instance('thread_spans', 'global')", "doesn't have an instance 'global'", 45),
    ("view_instance('otel_spans', 'global')", "Query the table", 43),
    (f"view_instance('blocks', '{P1}')", "The only instance of blocks is 'global'", 39),
    ("view_instance('log_entries')", "a view set and an ID", 15),
    ("view_instance()", "a view set and an ID", 15),
    ("view_instance('log_entries', msg)", "not a constant", 44),
    ("view_instance('log_entries', (SELECT 'global'))", "not a constant", 44),
    ("view_instance('log_entries', 7)", "not a string", 44),
    ("view_instance('measures', 'global')", "no table named measures", 29),
]


@pytest.mark.parametrize(("call", "what", "column"), REFUSED)
def test_what_names_no_instance_is_refused_with_its_place(everything, call, what, column):
    with pytest.raises(InvalidStatement) as caught:
        everything.plan(f"SELECT 1 AS n\nFROM log_entries, {call} AS v")

    assert what in str(caught.value)
    assert (caught.value.line, caught.value.column) == (2, column - 15 + 19)


def test_places_of_other_mistakes_stay_right(everything):
    for sql, place in [
        (f"SELECT v.mgs,\n level FROM view_instance('log_entries', '{P1}') AS v", (1, 10)),
        (f"SELECT 1 FROM view_instance('log_entries',\n '{P1}') AS v\nWHERE mgs = 1", (3, 7)),
        (f"SELECT 1 FROM view_instance\n('log_entries', '{P1}') AS v\n  JION x ON true", (3, 3)),
    ]:
        with pytest.raises(InvalidStatement) as caught:
            everything.plan(sql)
        assert (caught.value.line, caught.value.column) == place, sql
    with pytest.raises(InvalidStatement, match="view_instance") as caught:
        everything.plan(f"SELECT view_instance('log_entries', '{P1}')")
    assert "view_instance_1" not in str(caught.value)


def test_more_calls_than_a_person_writes_are_refused(everything):
    with pytest.raises(StatementRefused):
        everything.plan("SELECT 1 FROM " + ", ".join(["view_instance('log_entries', 'global')"] * 65))


def test_stand_ins_take_no_name_that_is_taken():
    sql = "SELECT * FROM view_instance_1, view_instance('a', 'b')"
    (call,) = lift_calls(scan(sql), {"view_instance"})

    assert call.stand_in == "view_instance_2"
    assert len(with_stand_ins(sql, [call]).sql) == len(sql)


# What a caller may see of log_entries, of log_stats, and of other tables; the rest of each is as if it were not there.
ROLES = {
    "log_entries": {"*": (), "log_entries": (VISIBLE,), "otel_spans": (VISIBLE,), "blocks": (VISIBLE,)},
    "everywhere": {"*": (VISIBLE,), "processes": ()},
}
ASKED = [
    STATS,
    "SELECT sum(count) AS n, max(time_bin) AS t FROM log_stats",
    "SELECT CAST(target AS INT) AS n, count FROM log_stats WHERE CAST(target AS INT) = 7",
    "SELECT time_bin FROM log_stats WHERE 1 / (level - 2) < 9 OR target = 'x'",
    "SELECT DISTINCT CAST(target AS INT) FROM log_stats l JOIN processes p ON l.process_id = p.process_id",
    "SELECT count(*) AS n FROM view_instance('log_entries', 'global') WHERE CAST(target AS INT) > 0",
    f"SELECT count(*) AS n FROM view_instance('log_entries', '{P1}') WHERE CAST(target AS INT) > 0",
    f"SELECT * FROM view_instance('log_entries', '{P2}') WHERE CAST(target AS INT) > 0",
    "SELECT sum(count) AS n FROM view_instance('log_stats', 'global') WHERE CAST(target AS INT) > 0",
    f"SELECT name, 1 / (duration - 999000000) FROM view_instance('otel_spans', '{P2}')",
    "SELECT name, process_id FROM otel_spans ORDER BY name",
    "SELECT block_id, CAST(substr(block_id, 2) AS INT) AS n FROM blocks ORDER BY block_id",
    "SELECT * FROM view_instance('blocks', 'global')",
    "SELECT encode(trace_id, 'hex') AS t FROM otel_spans WHERE CAST(encode(span_id, 'hex') AS INT) > 0",
]


def outcome(ask, sql, **options):
    try:
        return sorted(map(repr, ask.rows(sql, **options)))
    except MicromegasError as error:
        return type(error)


@pytest.fixture(scope="module")
def visible(folder):
    """The same tables of the rows that the roles show."""
    part = folder / "visible"
    part.mkdir()
    with asking(
        [
            stored(part, LOG_ENTRIES, [LOGS[0], LOGS[2]]),
            stored(part, OTEL_SPANS, [span_rows("a", "b", process_id=P1)]),
            stored(part, BLOCKS, [block_rows("b1", process_id=P1)]),
            stored(part, PROCESSES, [process_state(P1, updated=5000), process_state(P2, updated=6000)]),
        ],
        batch_rows=8,
    ) as asker:
        yield asker


@pytest.mark.parametrize("sql", ASKED)
@pytest.mark.parametrize("role", ROLES)
def test_views_answer_as_if_the_hidden_rows_were_not_there(everything, visible, sql, role):
    for times in (None, TimeRange(begin=NOON, end=NOON + timedelta(minutes=2))):
        found = outcome(everything.seeing(ROLES[role]), sql, time_range=times)

        assert found == outcome(visible, sql, time_range=times)


def test_the_statements_tell_of_hidden_rows_without_a_role(everything, visible):
    assert sum(outcome(everything, sql) == outcome(visible, sql) for sql in ASKED) <= 2


def test_a_role_may_hide_counts_and_all_of_them(everything):
    shown = everything.seeing({"log_entries": (), "log_stats": ("level = 2", "count > 2")})
    assert _bins(shown.rows(STATS)) == [(0, P1, 3), (0, P2, 1), (1, P2, 1), (60, P1, 1), (66, P2, 1)]
    both = everything.seeing({"log_entries": (VISIBLE,), "log_stats": ("count > 2",)})
    assert _bins(both.rows(STATS)) == [(0, P1, 3)]
    for filters in ({"log_entries": ()}, {"log_stats": ()}, {"processes": ()}):
        with pytest.raises(InvalidStatement, match="no table named log_stats"):
            everything.seeing(filters).rows("SELECT * FROM log_stats")
        assert "log_stats" not in [name for name, _ in everything.engine.tables(everything.seeing(filters).caller)]


def test_a_condition_on_the_entries_may_look_into_their_properties(everything):
    shown = everything.seeing(
        {"log_entries": ("property_get(properties, 'k') IS NULL AND level = 2",), "log_stats": ()}
    )

    assert _bins(shown.rows(STATS)) == [(0, P2, 1), (1, P2, 1), (60, P1, 1), (66, P2, 1)]
    assert shown.rows(f"SELECT property_get(properties, 'k') AS k FROM view_instance('log_entries', '{P1}')") == [
        {"k": None}
    ]


def test_what_only_administrators_see_is_not_counted_for_others(tables):
    with asking(tables, default_conditions={"log_entries": VISIBLE}) as ask:
        administrator = Asker(ask.engine, ask.tables, replace(ask.caller, is_admin=True))
        found = [_bins(one.rows(STATS)) for one in (ask, administrator)]

    assert found[0] == [one for one in found[1] if one[1] == P1] != found[1]


def test_a_condition_on_counts_is_checked_when_the_server_starts(everything):
    check_role_conditions(everything.tables, {"log_stats": ["count > 2 AND time_bin > '2026-01-01'"]})
    with pytest.raises(ConfigurationError, match="msg"):
        check_role_conditions(everything.tables, {"log_stats": ["msg = 'x'"]})


def test_views_are_listed_with_the_tables(everything):
    schemas = dict(everything.engine.tables(everything.caller))
    listed = everything.rows("SHOW TABLES")

    assert schemas["log_stats"].names == ["time_bin", "process_id", "level", "target", "count"]
    assert "log_stats" in [row["table_name"] for row in listed]
    assert not {row["table_name"] for row in listed} & {"__log_stats__rows", *SETS}
