"""A lake of an earlier version is copied into Delta tables: each visible row once, however often that is repeated."""

import hashlib
import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, run_round
from micromegas_jupyter.lake.segment_import import import_segments, is_segment_lake
from tests.fakes.telemetry_rows import NOON_NS, log_batch, process_state


@pytest.fixture
def old(tmp_path):
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path):
    return Storage(tmp_path / "new")


def _store(folder, rows, *, writer="w", first=0, last=0):
    folder.mkdir(parents=True, exist_ok=True)
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
    pq.write_table(table, folder / f"{writer}-{first:012d}-{last:012d}.parquet")


def _make_user_table(old, name, rows, *, maker="alice"):
    folder = hashlib.sha256(name.encode()).hexdigest()[:32]
    facts = {"name": name, "folder": folder, "write_id": "", "maker": maker}
    _store(old / ".tables" / "rows" / folder, rows)
    (old / ".tables" / f"{folder}.table").write_bytes(rows.schema.with_metadata(facts).serialize())


def _import(old, new):
    return list(import_segments(old, new))


def _read(new, table):
    return DeltaTable(new.child_uri(table)).to_pyarrow_table()


def test_each_visible_row_is_copied_once(old, new):
    _store(old / "log_entries", log_batch([0, 1]), first=0)
    _store(old / "log_entries", log_batch([2]), first=1, last=1)
    _store(old / "log_entries", log_batch([0, 1, 2]), first=0, last=31)
    _store(old / "log_entries", log_batch([1000, 2001], writer="v"), writer="v")
    _store(old / "log_entries", log_batch([9], writer="u"), writer="u")
    (old / "log_entries" / "u-000000000000-000000000000.dropped").touch()
    _store(old / "processes", process_state("p1", updated=5))

    results = _import(old, new)

    rows = _read(new, "log_entries").sort_by("msg")
    assert rows["msg"].to_pylist() == ["v:1000", "v:2001", "w:0", "w:1", "w:2"]
    assert [time.microsecond for time in rows["time"].to_pylist()] == [1, 2, 0, 0, 0]
    assert {*rows["date"].to_pylist()} == {datetime.fromtimestamp(NOON_NS / 1e9, UTC).date()}
    assert DeltaTable(new.child_uri("log_entries")).metadata().partition_columns == ["date"]
    assert [(one.name, one.new_rows) for one in results] == [("processes", 1), ("log_entries", 5)]


def test_maps_of_properties_become_binary_json(old, new):
    kind = pa.map_(pa.utf8(), pa.utf8())
    rows = pa.table(log_batch([0, 1]))
    for name in ("properties", "process_properties"):
        sets = pa.array([[("b", "2"), ("a", "1")], []], kind)
        rows = rows.set_column(rows.schema.get_field_index(name), pa.field(name, kind, nullable=False), sets)
    _store(old / "log_entries", rows)

    _import(old, new)

    assert _read(new, "log_entries").sort_by("msg")["properties"].to_pylist() == [
        encode({"a": "1", "b": "2"}),
        encode({}),
    ]


def test_repeating_copies_nothing_twice(old, new):
    _store(old / "log_entries", log_batch([0]))
    _import(old, new)
    run_round(new, settings=MaintenanceSettings(retention_days=36_500))
    _store(old / "processes", process_state("p1", updated=5))

    results = _import(old, new) + _import(old, new)

    assert (_read(new, "log_entries")["msg"].to_pylist(), _read(new, "processes").num_rows) == (["w:0"], 1)
    assert [(one.new_rows, one.known_rows) for one in results] == [(1, 0), (0, 1), (0, 1), (0, 1)]


def test_a_table_that_has_other_rows_is_left_as_it_is(old, new):
    _store(old / "log_entries", log_batch([0]))
    _make_user_table(old, "mine", pa.table({"n": [1]}))
    _import(old, new)
    _store(old / "log_entries", log_batch([0, 1]), first=0, last=31)
    DeltaTable(new.child_uri("mine")).delete()
    _make_user_table(old, "mine", pa.table({"n": [1, 2]}))

    results = _import(old, new)

    assert all("other rows" in result.error for result in results)
    assert (_read(new, "log_entries").num_rows, _read(new, "mine").num_rows) == (1, 0)


def test_tables_of_callers_come_along_with_their_owner_and_types(old, new):
    rows = pa.table(
        {
            "time": pa.array([-1, 1999], pa.timestamp("ns", "Europe/Paris")),
            "count": pa.array([2**64 - 1, 0], pa.uint64()),
            "small": pa.array([255, 0], pa.uint8()),
            "word": pa.array(["a", None]).dictionary_encode(),
            "pairs": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "items": pa.array([[{"a": [1.5]}], []], pa.list_(pa.struct([("a", pa.list_(pa.float64()))]))),
        }
    )
    _make_user_table(old, "mine", rows)

    _import(old, new)

    found = _read(new, "mine").to_pylist()
    assert [row["time"] for row in found] == [
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, microsecond=1, tzinfo=UTC),
    ]
    assert [(int(row["count"]), row["small"]) for row in found] == [(2**64 - 1, 255), (0, 0)]
    assert [row["word"] for row in found] == ["a", None]
    assert (found[0]["pairs"], found[0]["items"]) == ([("k", 1)], [{"a": [1.5]}])
    assert DeltaTable(new.child_uri("mine")).metadata().configuration["micromegas.owner"] == "alice"


def test_a_column_without_a_place_in_delta_is_named_and_other_tables_are_copied(old, new, capsys):
    _make_user_table(old, "clocks", pa.table({"at": pa.array([1], pa.time64("us"))}))
    _make_user_table(old, "days", pa.table({"day": [date(2026, 1, 2)]}))

    code = run(["lake", "import", str(old), new.uri])

    printed = capsys.readouterr()
    assert code == 1
    assert "'at'" in printed.err
    assert printed.out == "✓ days: 1 rows copied\n"
    assert not is_segment_lake(old.parent / "new")


def test_other_folders_are_no_lake_of_segments(tmp_path, old, new):
    assert not is_segment_lake(tmp_path / "none")
    with pytest.raises(UsageError):
        _import(tmp_path, new)
    _store(old / "measures", log_batch([0]))
    assert is_segment_lake(old)
    assert run(["lake", "import", str(old), str(old)]) == 2


def test_the_status_of_a_lake_is_shown(old, new, capsys):
    _store(old / "log_entries", log_batch([0]))
    assert run(["lake", "status", new.uri]) == 2
    _import(old, new)
    run_round(new)
    capsys.readouterr()

    assert run(["lake", "status", new.uri]) == 0
    shown = capsys.readouterr().out
    assert run(["lake", "status", new.uri, "--json"]) == 0

    assert "log_entries" in shown
    assert "free disk" in shown
    assert json.loads(capsys.readouterr().out)["tables"]["log_entries"]["files"] in {0, 1}
