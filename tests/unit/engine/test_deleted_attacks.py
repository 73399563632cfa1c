"""Statements of every kind have the rows that are left, as NumPy counts them, and show nothing of deleted ones."""

import json
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, WriterProperties, write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, TimeRange
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import MicromegasError, StatementRefused, UsageError
from micromegas_jupyter.lake.delta_log import read_state
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, optimize, run_round
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.tables import list_files
from tests.fakes.delta_tables import delete_rows
from tests.unit.engine.conftest import Asker, asking
from tests.unit.engine.test_deleted_rows import admin

START = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 100
#: Of files: a few are scanned one by one, and many in one scan.
SIZES = {"few": 3, "many": pytest.param(20, marks=pytest.mark.long)}
#: Values that only deleted rows have.
SECRETS = ("secret", "-999")


def rows_of_file(number):
    """Return the rows of a file, of which every tenth is deleted: it has extreme values, or fails in expressions."""
    numbers = np.arange(ROWS) + number * ROWS
    gone = numbers % 10 == 0
    texts = [f"secret{one}" if is_gone else str(one) for one, is_gone in zip(numbers, gone, strict=True)]
    floats = np.choose(numbers % 4, [np.nan, -0.0, 0.0, 1.5])
    inner = [
        {"x": -999 if one else int(n), "l": [{"y": text}]} for n, one, text in zip(numbers, gone, texts, strict=True)
    ]
    times = [START + timedelta(days=-9999 if one else 0, seconds=int(n)) for n, one in zip(numbers, gone, strict=True)]
    return pa.table(
        {
            "n": numbers,
            "small": pa.array(np.where(gone, -999, numbers % 7), pa.int32()),
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "tenant": np.array(["a", "b"])[(numbers // 2) % 2],
            "text": texts,
            "zero": (~gone).astype(np.int64),
            "f": np.where(gone, -np.inf, floats),
            "tags": [[-999] if one else [int(n) % 3, 7] for n, one in zip(numbers, gone, strict=True)],
            "deep": [{"in": one} for one in inner],
        }
    )


class Left:
    """The rows that are left, as arrays."""

    def __init__(self, files, tenants):
        rows = pa.concat_tables(rows_of_file(number) for number in range(files))
        keep = (rows["zero"].to_numpy() == 1) & np.isin(rows["tenant"].to_numpy(zero_copy_only=False), tenants)
        self.rows = rows.filter(pa.array(keep))
        self.n = self.rows["n"].to_numpy()
        self.small = self.rows["small"].to_numpy()
        self.f = self.rows["f"].to_numpy()


def counted(values):
    """Return each value with how often it is there."""
    return sorted(zip(*map(np.ndarray.tolist, np.unique(values, return_counts=True)), strict=True))


#: Statements, and the rows that they have, in order.
ATTACKS = {
    "SELECT count(*) FROM t": lambda left: [(len(left.n),)],
    "SELECT count(1), count(text), count(DISTINCT small) FROM t": lambda left: [
        (len(left.n), len(left.n), len(np.unique(left.small)))
    ],
    "SELECT min(n), max(n), min(small), max(small) FROM t": lambda left: [
        (left.n.min(), left.n.max(), left.small.min(), left.small.max())
    ],
    "SELECT min(time)::TEXT FROM t": lambda left: [(f"2026-01-01T00:00:{left.n.min():02}Z",)],
    "SELECT min(f) = 0, count(*) FILTER (WHERE isnan(f)) FROM t": lambda left: [(True, np.isnan(left.f).sum())],
    "SELECT count(*) FROM t WHERE f = 0": lambda left: [((left.f == 0).sum(),)],
    "SELECT count(*) FROM t WHERE f < -1": lambda _: [(0,)],
    "SELECT count(*) FROM t WHERE CAST(text AS BIGINT) >= 0 AND 10 / zero = 10": lambda left: [(len(left.n),)],
    "SELECT n, row_number() OVER (ORDER BY n), lag(n) OVER (ORDER BY n) FROM t ORDER BY n LIMIT 3": lambda left: [
        (left.n[0], 1, None),
        (left.n[1], 2, left.n[0]),
        (left.n[2], 3, left.n[1]),
    ],
    "SELECT DISTINCT max(n) OVER (), count(*) OVER (), first_value(n) OVER (ORDER BY n) FROM t": lambda left: [
        (left.n.max(), len(left.n), left.n[0])
    ],
    "SELECT small, rank() OVER (ORDER BY small) AS r, CAST(max(text) OVER (PARTITION BY small) AS BIGINT) > 0 FROM t "
    "ORDER BY 1 LIMIT 1": lambda left: [(left.small.min(), 1, True)],
    "SELECT tag, count(*) FROM (SELECT unnest(tags) AS tag FROM t) GROUP BY 1 ORDER BY 1": lambda left: counted(
        np.concatenate(left.rows["tags"].to_pylist())
    ),
    "SELECT count(*) FROM (SELECT n FROM t UNION SELECT n FROM t)": lambda left: [(len(left.n),)],
    "SELECT count(*) FROM (SELECT n FROM t UNION ALL SELECT n FROM t)": lambda left: [(2 * len(left.n),)],
    "SELECT count(*) FROM (SELECT n FROM t INTERSECT SELECT n FROM t WHERE n < 50)": lambda left: [
        ((left.n < 50).sum(),)
    ],
    "SELECT count(*) FROM (SELECT value AS n FROM generate_series(0, 99) EXCEPT SELECT n FROM t)": lambda left: [
        (100 - (left.n < 100).sum(),)
    ],
    "WITH v AS (SELECT n, CAST(text AS BIGINT) AS c FROM t) SELECT count(*) FROM v WHERE c = n": lambda left: [
        (len(left.n),)
    ],
    "SELECT count(*), sum(n) FROM (SELECT n FROM t LIMIT 100000 OFFSET 0)": lambda left: [(len(left.n), left.n.sum())],
    "SELECT n FROM t ORDER BY n OFFSET 5 LIMIT 4": lambda left: [(one,) for one in left.n[5:9]],
    "SELECT n FROM t ORDER BY time LIMIT 7": lambda left: [(one,) for one in left.n[:7]],
    "SELECT n FROM t ORDER BY time DESC LIMIT 95": lambda left: [(one,) for one in left.n[::-1][:95]],
    "SELECT n FROM t ORDER BY f, n LIMIT 2": lambda left: [
        (one,) for one in left.n[np.isin(left.f, 0) & np.signbit(left.f)][:2]
    ],
    "SELECT n FROM t ORDER BY CAST(text AS BIGINT) DESC LIMIT 2": lambda left: [(one,) for one in left.n[::-1][:2]],
    "SELECT count(*) FROM t a JOIN t b ON a.n = b.n AND CAST(a.text AS BIGINT) = b.n": lambda left: [(len(left.n),)],
    "SELECT count(*) FROM t a JOIN (VALUES (0), (1), (10), (11)) AS v (k) ON a.n = v.k": lambda left: [
        (np.isin(left.n, (1, 11)).sum(),)
    ],
    "SELECT count(*) FROM (VALUES (0), (10), (20)) AS v (k) LEFT JOIN t ON t.n = v.k WHERE t.n IS NULL": lambda _: [
        (3,)
    ],
    "SELECT count(*) FROM t a FULL JOIN t b ON a.n = b.n + 1 WHERE b.n IS NULL": lambda left: [
        ((~np.isin(left.n - 1, left.n)).sum(),)
    ],
    "SELECT count(*) FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE b.n = a.n + 1 AND 1 / b.zero = 1)": lambda left: [
        (np.isin(left.n + 1, left.n).sum(),)
    ],
    "SELECT count(*) FROM t a WHERE NOT EXISTS (SELECT 1 FROM t b WHERE b.n = a.n - 1)": lambda left: [
        ((~np.isin(left.n - 1, left.n)).sum(),)
    ],
    "SELECT count(*) FROM t WHERE n = (SELECT max(n) FROM t)": lambda _: [(1,)],
    "SELECT count(*) FROM t a WHERE a.small = (SELECT min(b.small) FROM t b WHERE b.tenant = a.tenant)": lambda left: [
        ((left.small == left.small.min()).sum(),)
    ],
    "SELECT DISTINCT small FROM t ORDER BY 1": lambda left: [(one,) for one in np.unique(left.small)],
    "SELECT small, count(*) FROM t GROUP BY 1 ORDER BY 1": lambda left: counted(left.small),
    "SELECT small, count(*) FROM t GROUP BY GROUPING SETS ((small), ()) ORDER BY 1 NULLS LAST": lambda left: [
        *counted(left.small),
        (None, len(left.n)),
    ],
    "SELECT zero, count(*) FROM t GROUP BY CUBE (zero) ORDER BY 1": lambda left: [
        (1, len(left.n)),
        (None, len(left.n)),
    ],
    "SELECT count(*) FROM t WHERE deep['in']['x'] = n AND deep['in']['l'][1]['y'] = text": lambda left: [
        (len(left.n),)
    ],
    "SELECT count(*) FROM t WHERE deep['in']['x'] < 0 OR deep['in']['l'][1]['y'] LIKE 'secret%'": lambda _: [(0,)],
    "SELECT count(DISTINCT arrow_cast(text, 'Dictionary(Int32, Utf8)')) FROM t": lambda left: [(len(left.n),)],
    "SELECT count(*) FROM t WHERE text IN (SELECT 'secret' || value FROM generate_series(0, 999))": lambda _: [(0,)],
    "SELECT string_agg(text, ',' ORDER BY n DESC) FROM t WHERE n < 13": lambda left: [
        (",".join(str(one) for one in left.n[left.n < 13][::-1]),)
    ],
    "SELECT approx_distinct(zero), bool_and(zero = 1), array_length(array_agg(n)) FROM t": lambda left: [
        (1, True, len(left.n))
    ],
    "SELECT TRY_CAST(text AS BIGINT) IS NULL, count(*) FROM t GROUP BY 1": lambda left: [(False, len(left.n))],
    "SELECT coalesce(sum(CASE WHEN zero = 0 THEN 1 / zero ELSE 0 END), 0) FROM t": lambda _: [(0,)],
}
#: Statements that fail on rows that are left, with a value of one of these.
FAILING = (
    "SELECT CAST(concat(text, 'x') AS BIGINT) FROM t",
    "SELECT CAST(concat(text, 'x') AS BIGINT) FROM t ORDER BY time",
    "SELECT max(CAST(concat(text, 'x') AS DATE)) FROM t WHERE n > 5",
    "SELECT 1 / (zero - 1) FROM t",
    "SELECT arrow_cast(n * 1000000000000, 'Int32') FROM t WHERE n > 0",
)
PLANS = ("EXPLAIN SELECT * FROM t WHERE small < 0", "EXPLAIN SELECT min(small), min(text), count(*) FROM t")


def write_table(storage, files, name="t"):
    """Write a table in small row groups, with deleted rows."""
    for number in range(files):
        write_deltalake(
            storage.child_uri(name),
            rows_of_file(number),
            mode="append",
            storage_options=storage.options,
            writer_properties=WriterProperties(max_row_group_size=16),
        )
    return delete_rows(storage, name, lambda _, count: range(0, count, 10))


@pytest.fixture(scope="module", params=SIZES.values(), ids=SIZES)
def files(request):
    return request.param


@pytest.fixture(scope="module")
def table(tmp_path_factory, files):
    """An engine that reads a table."""
    storage = Storage(tmp_path_factory.mktemp("attacked"))
    write_table(storage, files)
    with asking(ServedFolder(storage)) as ask:
        yield ask


WHO = {
    "administrator": (admin, ("a", "b")),
    "filtered caller": (lambda ask: ask.seeing({"t": ("tenant = 'a'",)}), ("a",)),
}


def plain(rows):
    """Return rows of numbers and texts that compare as they are shown: -0.0 is not 0.0."""
    return [str(tuple(one.item() if hasattr(one, "item") else one for one in row)) for row in rows]


def wrong_attacks(ask, left):
    """Return the statements whose rows are others than those that NumPy counts, or that show deleted values."""
    wrong = {}
    for sql, count in ATTACKS.items():
        try:
            found = list(zip(*(one.to_pylist() for one in ask.table(sql).columns), strict=True))
        except MicromegasError as error:
            found = [(str(error),)]
        if plain(found) != plain(count(left)):
            wrong[sql] = (found[:3], count(left)[:3])
    for sql in FAILING:
        with pytest.raises(MicromegasError) as failure:
            ask.rows(sql)
        if any(secret in f"{failure.value!r} {failure.value}" for secret in SECRETS):
            wrong[sql] = str(failure.value)
    for sql in PLANS:
        try:
            text = str(ask.rows(sql))
        except StatementRefused as error:  # a filtered caller's
            text = str(error)
        if any(secret in text for secret in SECRETS):
            wrong[sql] = text
    return wrong


@pytest.mark.parametrize("who", WHO)
def test_statements_have_the_rows_that_are_left(table, files, who):
    as_who, tenants = WHO[who]
    assert wrong_attacks(as_who(table), Left(files, tenants)) == {}


@pytest.mark.parametrize("who", WHO)
def test_time_ranges_and_listings_have_only_rows_that_are_left(table, files, who):
    as_who, tenants = WHO[who]
    ask, left = as_who(table), Left(files, tenants)
    for begin, end, count in (
        (START, START + timedelta(seconds=50), (left.n <= 50).sum()),
        (START - timedelta(days=10000), START - timedelta(days=9000), 0),
        (START - timedelta(days=10000), START + timedelta(days=1), len(left.n)),
    ):
        found = ask.table("SELECT count(*) FROM t WHERE 1 / zero = 1", time_range=TimeRange(begin=begin, end=end))
        assert found.column(0).to_pylist() == [count]
    for sql in ("SELECT * FROM list_partitions('t', 'global')", "SELECT * FROM running_queries()", "SHOW TABLES"):
        with suppress(MicromegasError):
            found = str(ask.rows(sql))
            assert str(files * ROWS) not in found
            assert "1998" not in found  # the year of the deleted rows


def test_listed_files_tell_nothing_of_deleted_rows_even_if_none_are_left(tmp_path):
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("t"), rows_of_file(0))
    delete_rows(storage, "t", lambda _, count: range(count))

    class Files:
        def files(self, table):
            return list_files(storage, table)

    source = ServedFolder(storage)
    with closing(DataFusionEngine(source, EngineSettings(), files=Files())) as engine:
        (found,) = admin(Asker(engine, source)).rows("SELECT * FROM list_partitions()")
    assert (found["num_rows"], found["min_event_time"], found["max_event_time"]) == (None, None, None)


def _read_actions(storage):
    state = read_state(storage, "t", DeltaTable(storage.child_uri("t")).version())
    return (
        state,
        [{"protocol": state.protocol}, {"metaData": state.metadata}],
        [{"add": one} for one in state.files.values()],
    )


_TEXTS = pa.list_(pa.string())
_OPTIONS = pa.map_(pa.string(), pa.string())
_CHECKPOINT = pa.schema(
    {
        "protocol": pa.struct(
            {
                "minReaderVersion": pa.int32(),
                "minWriterVersion": pa.int32(),
                "readerFeatures": _TEXTS,
                "writerFeatures": _TEXTS,
            }
        ),
        "metaData": pa.struct(
            {
                "id": pa.string(),
                "format": pa.struct({"provider": pa.string(), "options": _OPTIONS}),
                "schemaString": pa.string(),
                "partitionColumns": _TEXTS,
                "configuration": _OPTIONS,
                "createdTime": pa.int64(),
            }
        ),
        "add": pa.struct(
            {
                "path": pa.string(),
                "partitionValues": _OPTIONS,
                "size": pa.int64(),
                "modificationTime": pa.int64(),
                "dataChange": pa.bool_(),
                "stats": pa.string(),
                "deletionVector": pa.struct(
                    {
                        "storageType": pa.string(),
                        "pathOrInlineDv": pa.string(),
                        "offset": pa.int32(),
                        "sizeInBytes": pa.int32(),
                        "cardinality": pa.int64(),
                    }
                ),
            }
        ),
        "sidecar": pa.struct({"path": pa.string(), "sizeInBytes": pa.int64(), "modificationTime": pa.int64()}),
        "checkpointMetadata": pa.struct({"version": pa.int64()}),
    }
)


def _write_checkpoint(path, actions, names=("protocol", "metaData", "add")):
    path.parent.mkdir(exist_ok=True)
    schema = pa.schema([_CHECKPOINT.field(name) for name in names])
    pq.write_table(pa.Table.from_pylist(actions, schema), path)


def _keep_only_checkpoint(log, version, **facts):
    for number in range(version):
        (log / f"{number:020}.json").unlink()
    (log / "_last_checkpoint").write_text(json.dumps({"version": version, "size": 5, **facts}))


def checkpoint(storage, log):
    state, head, adds = _read_actions(storage)
    _write_checkpoint(log / f"{state.version:020}.checkpoint.parquet", head + adds)
    _keep_only_checkpoint(log, state.version)


def checkpoint_in_parts(storage, log):
    state, head, adds = _read_actions(storage)
    for part, actions in enumerate((head, adds[:1], adds[1:]), 1):
        _write_checkpoint(log / f"{state.version:020}.checkpoint.{part:010}.{3:010}.parquet", actions)
    _keep_only_checkpoint(log, state.version, parts=3)


def checkpoint_with_sidecars(storage, log):
    state, head, adds = _read_actions(storage)
    for features in ("readerFeatures", "writerFeatures"):
        head[0]["protocol"] = {**head[0]["protocol"], features: [*state.protocol[features], "v2Checkpoint"]}
    head.append({"checkpointMetadata": {"version": state.version}})
    for part, actions in enumerate((adds[:1], adds[1:])):
        path = log / "_sidecars" / f"{part}.parquet"
        _write_checkpoint(path, actions, ["add"])
        facts = {"path": path.name, "sizeInBytes": path.stat().st_size, "modificationTime": 1}
        head.append({"sidecar": facts})
    name = f"{state.version:020}.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet"
    _write_checkpoint(log / name, head, _CHECKPOINT.names)
    _keep_only_checkpoint(log, state.version)


def _rewrite(log, change):
    for entry in log.glob("*.json"):
        actions = [json.loads(line) for line in entry.read_text().splitlines()]
        for action in actions:
            for name in action.keys() & {"add", "remove", "metaData", "protocol"}:
                change(name, action[name])
        entry.write_text("".join(json.dumps(action) + "\n" for action in actions))


def quoted_paths(_, log):
    for file in log.parent.glob("*.parquet"):
        file.rename(file.with_name(f"a b%20c#é {file.name}"))

    def change(name, action):
        if name in {"add", "remove"}:
            action["path"] = quote(f"a b%20c#é {action['path']}")

    _rewrite(log, change)


def absolute_vectors(_, log):
    (path,) = log.parent.glob("deletion_vector_*")

    def change(_, action):
        if action.get("deletionVector"):
            action["deletionVector"] |= {"storageType": "p", "pathOrInlineDv": path.as_uri()}

    _rewrite(log, change)


def widened(_, log):
    def change(name, action):
        if name == "metaData":
            action["schemaString"] = action["schemaString"].replace('"small","type":"integer"', '"small","type":"long"')
            assert '"small","type":"long"' in action["schemaString"]
        elif name == "protocol" and "readerFeatures" in action:
            for features in ("readerFeatures", "writerFeatures"):
                action[features] = [*action[features], "typeWidening"]

    _rewrite(log, change)


SHAPES = (checkpoint, checkpoint_in_parts, checkpoint_with_sidecars, quoted_paths, absolute_vectors, widened)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.long)])
def test_rows_are_those_that_are_left_in_logs_of_every_shape(tmp_path, shape, count):
    storage = Storage(tmp_path)
    write_table(storage, count)
    shape(storage, tmp_path / "t/_delta_log")

    with asking(ServedFolder(storage)) as ask:
        assert wrong_attacks(ask, Left(count, ("a", "b"))) == {}


def test_a_change_after_planning_brings_no_row_back(tmp_path):
    storage = Storage(tmp_path)
    path = write_table(storage, 3)
    with asking(ServedFolder(storage)) as ask:
        planned = ask.plan("SELECT n FROM t WHERE 1 / zero = 1")
        delete_rows(storage, "t", lambda _, count: range(0, count, 5))
        found = [number for batch in planned.batches() for number in batch.column(0).to_pylist()]
        assert sorted(found) == [number for number in range(300) if number % 10]
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 240}]
        # What is kept of a vector is not taken for that of another version in the same file.
        content = Path(storage.child_uri(path)).read_bytes()
        delete_rows(storage, "t", lambda _, count: range(0, count, 2))
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 150}]
        assert content == Path(storage.child_uri(path)).read_bytes()


@pytest.mark.parametrize("is_inline", [False, True])
def test_compaction_rejects_a_table_with_vectors_by_name_and_changes_nothing(tmp_path, is_inline):
    storage = Storage(tmp_path)
    for number in range(3):
        write_deltalake(storage.child_uri("orders"), rows_of_file(number), mode="append")
    delete_rows(storage, "orders", lambda _, count: range(0, count, 10), is_inline=is_inline)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    with pytest.raises(
        UsageError, match="The table orders uses features that this server cannot write: deletionVectors"
    ):
        optimize(storage, "orders")
    seen = run_round(storage, settings=MaintenanceSettings(min_small_files=2)).seen
    run_round(storage, settings=MaintenanceSettings(min_small_files=2), seen=seen)

    after = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert [path for path in after if path.parts[0] == "orders"] == [
        path for path in before if path.parts[0] == "orders"
    ]
    with asking(ServedFolder(storage)) as ask:
        assert ask.rows("SELECT count(*) AS c FROM orders") == [{"c": 270}]
