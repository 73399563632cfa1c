"""Deleted rows exist for nobody, and columns have their table's names, whatever the files hold."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine import tables
from micromegas_jupyter.engine.contract import VisibleTable
from micromegas_jupyter.engine.plans import live_rows
from micromegas_jupyter.errors import InvalidStatement, StatementRefused, Unavailable, UnsupportedStatement, UsageError
from micromegas_jupyter.lake import snapshot
from micromegas_jupyter.lake.delta_log import read_state
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.tables import Tables
from tests.fakes.delta_tables import delete_rows, write_mapped
from tests.fakes.leak_statements import TABLES, rows_of_file, write_tables, wrong_statements
from tests.unit.engine.conftest import Asker, asking

FILTERS = {name: ("tenant = 'a'",) for table in TABLES for name in (table, f"{table}_ref")}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """Tables of a few and of many files, with a tenth of their rows deleted, and the same without these rows."""
    found = Storage(tmp_path_factory.mktemp("deleted"))
    write_tables(found)
    return found


def admin(ask):
    return Asker(ask.engine, ask.tables, replace(ask.caller, is_admin=True))


@pytest.mark.parametrize("who", [admin, lambda ask: ask.seeing(FILTERS)], ids=["administrator", "filtered caller"])
def test_no_statement_notices_a_deleted_row(storage, who):
    with asking(ServedFolder(storage)) as ask:
        assert wrong_statements(who(ask)) == []


def test_the_leak_statements_notice_a_missing_barrier(storage, monkeypatch):
    monkeypatch.setattr(VisibleTable, "needs_barrier", VisibleTable.hides_rows)
    with asking(ServedFolder(storage)) as ask:
        assert len(wrong_statements(admin(ask))) >= 8


def test_the_leak_statements_notice_counts_of_deleted_rows(storage, monkeypatch):
    counted = snapshot._bounds
    monkeypatch.setattr(snapshot, "_bounds", lambda actions, columns: counted(_with_written_rows(actions), columns))
    with asking(ServedFolder(storage)) as ask:
        assert len(wrong_statements(admin(ask))) >= 3


def _with_written_rows(actions):
    if "deleted" not in actions.column_names:
        return actions
    place = actions.column_names.index("num_records")
    return actions.set_column(place, "num_records", pa.array([1000] * actions.num_rows, pa.int64()))


def test_the_self_test_passes():
    assert tables.hides_deleted_rows(SessionContext())


@pytest.mark.parametrize(
    ("where", "name", "weak"),
    [
        (tables, "all_of", lambda rows: rows),
        (live_rows, "_is_live", lambda _, rows: pa.array([True] * len(rows), pa.bool_())),
    ],
    ids=["no barrier", "nothing deleted"],
)
def test_the_self_test_notices_a_weak_engine_and_tables_are_rejected_by_name(storage, monkeypatch, where, name, weak):
    monkeypatch.setattr(where, name, weak)

    assert not tables.hides_deleted_rows(SessionContext())
    with asking(ServedFolder(storage)) as ask:
        with pytest.raises(Unavailable, match="The table few cannot be read") as failure:
            ask.rows("SELECT n FROM few WHERE n = 1")
        assert ask.rows("SELECT count(*) AS c FROM few_ref") == [{"c": 2700}]
    assert not failure.value.retryable


@pytest.mark.parametrize("sql", ["EXPLAIN ANALYZE SELECT * FROM few WHERE n = 0", "EXPLAIN VERBOSE SELECT n FROM few"])
def test_counts_in_plans_are_for_administrators(storage, sql):
    with asking(ServedFolder(storage)) as ask:
        with pytest.raises(StatementRefused, match="one of its tables contains deleted rows"):
            ask.rows(sql)
        assert ask.rows(sql.replace("few", "few_ref"))
        assert admin(ask).rows(sql)
        plain = ask.plan("SELECT sum(n) FROM few")
        assert list(plain.batches())
        assert (plain.hides_rows, plain.progress()) == (True, None)
        assert not admin(ask).plan("SELECT sum(n) FROM few").hides_rows


@pytest.mark.parametrize("name", ["row_is_live(1)", "file_row_index()", "input_file_name()", "with_names(1)"])
def test_no_statement_calls_the_functions_of_scans(storage, name):
    with asking(ServedFolder(storage)) as ask, pytest.raises(InvalidStatement, match="no function named"):
        admin(ask).rows(f"SELECT {name} FROM few")


def test_several_lists_of_one_column_are_right_or_rejected(storage):
    sql = "SELECT n FROM {} WHERE n IN (1, 2, 10) AND n NOT IN (2, 3, 20) ORDER BY n"
    with asking(ServedFolder(storage)) as ask:
        assert ask.rows(sql.format("few")) == ask.rows(sql.format("few_ref")) == [{"n": 1}]
        with pytest.raises(UnsupportedStatement, match="several IN lists for one column"):
            ask.rows("SELECT n FROM few WHERE (n IN (1, 2, 10) AND n NOT IN (2, 3, 20)) IS NOT FALSE AND n IN (1, 2)")


def test_what_an_engine_counts_and_describes_is_what_is_live(storage):
    with asking(ServedFolder(storage)) as ask:
        (explained,) = admin(ask).plan("EXPLAIN SELECT * FROM few").explained
    assert (explained.files, explained.rows) == (3, 2700)


def test_reading_loads_only_the_vectors_that_are_needed(tmp_path, monkeypatch):
    storage, loaded = Storage(tmp_path), []
    for number in range(40):
        write_deltalake(storage.child_uri("t"), rows_of_file(number, 100), mode="append")
    delete_rows(storage, "t", lambda _, count: range(0, count, 10))
    decode = live_rows.decode_vector
    monkeypatch.setattr(live_rows, "decode_vector", lambda *args: loaded.append(args[0]) or decode(*args))
    folder = ServedFolder(storage)

    with asking(folder) as ask:
        folder.snapshot()
        ask.rows("SELECT count(*) FROM t WHERE n < 0")  # the self-test loads some
        loaded.clear()
        assert ask.rows("SELECT count(*) AS c FROM t WHERE n BETWEEN 100 AND 199") == [{"c": 90}]
        assert len(loaded) == 1
        delete_rows(storage, "t", lambda _, count: range(0, count, 5))
        assert folder.snapshot()
        assert len(loaded) == 1
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 3200}]
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 3200}]
        assert len(loaded) == 41


def _counters(planned):
    rows = [row for batch in planned.batches() for row in batch.to_pylist()]
    return rows, planned.reads, planned.statistics.files_read


def test_rows_that_are_only_counted_come_from_the_log(tmp_path):
    storage = Storage(tmp_path)
    schema = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("n", pa.int64())])
    rows = pa.table({"key": ["a", "b", "c"] * 100, "n": [1, None, 2] * 100}, schema)
    for part in (rows, rows.slice(0, 20)):
        write_deltalake(storage.child_uri("t"), part, mode="append")
    delete_rows(storage, "t", lambda _, count: range(0, count, 10))

    with asking(ServedFolder(storage)) as ask:
        counted = {
            sql: _counters(admin(ask).plan(f"SELECT {sql}"))
            for sql in (
                "count(*) AS c FROM t",
                "count(*) AS c FROM t WHERE key IS NOT NULL",
                "count(*) AS c FROM t WHERE 1 = 1 LIMIT 5",
            )
        }
        assert counted == dict.fromkeys(counted, ([{"c": 288}], {"t": ()}, 0))
        assert _counters(admin(ask).plan("SELECT count(n) AS c FROM t")) == ([{"c": 192}], {"t": ("n",)}, 2)
        assert ask.rows("SELECT count(*) AS c FROM t a, t b") == [{"c": 288 * 288}]
        assert ask.rows("SELECT count(*) AS c FROM t a, t b WHERE b.n = 1") == [{"c": 288 * 96}]
        hiding = ask.seeing({"t": ("key = 'a'",)})
        assert hiding.rows("SELECT count(*) AS c FROM t") == ask.rows("SELECT count(*) AS c FROM t WHERE key = 'a'")


def test_a_lookup_opens_only_the_file_with_its_row(storage):
    with asking(ServedFolder(storage)) as ask:
        assert _counters(admin(ask).plan("SELECT n FROM few WHERE n = 2001")) == ([{"n": 2001}], {"few": ("n",)}, 1)


@pytest.mark.parametrize("is_inline", [True, False])
@pytest.mark.parametrize("has_partitions", [True, False])
def test_rows_are_deltas_own(tmp_path, is_inline, has_partitions):
    storage, path = Storage(tmp_path), str(tmp_path / "t")
    rows = pa.table({"n": range(6000), "p": ["x", "y/ z", None] * 2000})
    for _ in range(2):
        write_deltalake(path, rows, mode="append", partition_by=["p"] if has_partitions else None)
    folder = ServedFolder(storage)
    for step in (7, 1, 3):  # also of all rows of some files, and then of others
        delete_rows(
            storage,
            "t",
            lambda name, count, step=step: range(0, count if len(name) % 3 else 7, step),
            is_inline=is_inline,
        )
        with asking(folder) as ask:
            found = ask.rows("SELECT n, p FROM t ORDER BY n, p")
            assert found == _by_deltalake(path)
            assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": len(found)}]


def _by_deltalake(path):
    from deltalake import QueryBuilder

    rows = QueryBuilder().register("t", DeltaTable(path)).execute("SELECT n, p FROM t ORDER BY n, p").read_all()
    return pa.table(rows).to_pylist()


DAMAGE = {
    "gone": (lambda path: path.unlink(), "some of its files were removed"),
    "short": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "a deletion vector has a different size"),
    "empty": (lambda path: path.write_bytes(b""), "a deletion vector has a different size"),
    "other bits": (
        lambda path: path.write_bytes(_flip(path.read_bytes(), 30)),
        "a deletion vector has an incorrect checksum",
    ),
    "other size": (
        lambda path: path.write_bytes(_flip(path.read_bytes(), 4)),
        "a deletion vector has a different size",
    ),
}


def _flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_or_missing_vector_rejects_the_table_by_name(tmp_path, name):
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("orders"), rows_of_file(0))
    path = Path(storage.child_uri(delete_rows(storage, "orders", lambda _, count: range(0, count, 10), prefix="ab")))
    damage, reason = DAMAGE[name]
    damage(path)

    with (
        asking(ServedFolder(storage)) as ask,
        pytest.raises(Unavailable, match=f"The table orders.*{reason}") as failure,
    ):
        ask.rows("SELECT count(*) FROM orders")
    assert not failure.value.retryable


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cardinality": 99}, "deletes a different number of rows"),
        ({"cardinality": 101}, "deletes a different number of rows"),
        ({"cardinality": 1001}, "deletes more rows than its file has"),
        ({"sizeInBytes": 40}, "a different size"),
        ({"storageType": "x"}, "unknown"),
        ({"storageType": "p", "pathOrInlineDv": "/etc/passwd"}, "outside its folder"),
        ({"storageType": "p", "pathOrInlineDv": "file:///etc/passwd"}, "outside its folder"),
        ({"pathOrInlineDv": "../" + 20 * "0"}, "outside its folder"),
        ({"pathOrInlineDv": 20 * "~"}, "the name of a deletion vector is corrupted"),
    ],
)
def test_a_wrong_descriptor_rejects_the_table_by_name(tmp_path, changes, reason):
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("orders"), rows_of_file(0))
    delete_rows(storage, "orders", lambda _, count: range(0, count, 10))
    entry = tmp_path / "orders/_delta_log" / f"{1:020}.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["deletionVector"] |= changes
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))

    with asking(ServedFolder(storage)) as ask, pytest.raises(Unavailable, match=f"The table orders.*{reason}"):
        ask.rows("SELECT count(*) FROM orders")


def test_a_missing_data_file_is_an_error_that_names_the_table(tmp_path):
    write_deltalake(str(tmp_path / "orders"), rows_of_file(0))
    folder = ServedFolder(Storage(tmp_path))
    next((tmp_path / "orders").glob("*.parquet")).unlink()

    with asking(folder) as ask, pytest.raises(Unavailable, match=r"The table orders.* files were removed") as failure:
        ask.rows("SELECT count(*) FROM orders")
    assert not failure.value.retryable


def test_writers_reject_a_table_with_vectors_or_mapped_columns(tmp_path):
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("orders"), rows_of_file(0))
    delete_rows(storage, "orders", lambda _, count: range(0, count, 10))
    write_mapped(storage, "mapped", [pa.table({"a": [1]})], mode="name", physical={"a": "b"})

    for name in ("orders", "mapped"):
        with pytest.raises(UsageError, match="cannot write"):
            Tables(storage).delete(name, "true")


SWAPPED = {"a": "b", "b": "a", "s": "s"}


def swapped_file(number):
    """Return the rows of a file; in those of the second half a column is missing."""
    numbers = list(range(number * 10, number * 10 + 10))
    rows = {"a": numbers, "b": [-one for one in numbers], "s": [{"x": one, "y": str(one)} for one in numbers]}
    return pa.table(rows).drop_columns("b" if number >= 30 else [])


@pytest.mark.parametrize(
    ("mode", "in_files"),
    [("name", None), ("id", None), ("id", {"a": "s", "b": "a", "s": "b"})],
    ids=["name", "id", "id and other names"],
)
@pytest.mark.parametrize("has_vectors", [False, True])
def test_columns_have_their_tables_names(tmp_path, mode, in_files, has_vectors):
    storage, files = Storage(tmp_path), [swapped_file(number) for number in range(40)]
    write_mapped(storage, "t", files, mode=mode, physical=SWAPPED, in_files=in_files)
    wanted = pa.concat_tables(files, promote_options="default").to_pylist()
    if has_vectors:
        delete_rows(storage, "t", lambda _, count: range(0, count, 3))
        wanted = [row for row in wanted if row["a"] % 10 % 3]

    with asking(ServedFolder(storage)) as ask:
        assert ask.table("SELECT * FROM t ORDER BY a").to_pylist() == wanted
        for number in (7, 388, 9999):
            rows = [row for row in wanted if row["a"] == number]
            assert ask.rows(f"SELECT * FROM t WHERE a = {number}") == rows
            rows = [{"a": row["a"]} for row in wanted if row["b"] == -number]
            assert ask.rows(f"SELECT a FROM t WHERE b = {-number}") == rows
        assert ask.rows("SELECT b FROM t ORDER BY a DESC LIMIT 1")[0]["b"] is None
        assert ask.rows("SELECT a FROM t WHERE s['x'] = 7") == [{"a": 7}]
        rows = [{"a": row["a"], "b": row["b"], "x": row["s"]["x"]} for row in wanted if row["a"] < 20]
        assert ask.rows("SELECT a, b, s['x'] AS x FROM t WHERE s['x'] < 20 ORDER BY a") == rows
        assert ask.rows("SELECT min(b) AS b, max(a) AS a FROM t WHERE a < 300") == [
            {"b": -298 if has_vectors else -299, "a": 298 if has_vectors else 299}
        ]
        mine = ask.seeing({"t": ("b = -7",)})
        assert mine.rows("SELECT a FROM t WHERE CAST(s['y'] AS BIGINT) > 0") == [{"a": 7}]
        assert list(mine.plan("SELECT a FROM t").reads) == ["t"]


def test_names_inside_of_columns_are_those_of_the_table(tmp_path):
    nested = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.struct([("deep", pa.string())])))])
    rows = pa.table({"col": pa.array([{"a": 1, "b": [{"deep": "x"}, None]}, None], nested)})
    physical = {"col": "col-1", "a": "b", "b": "a", "deep": "col-9"}
    write_mapped(Storage(tmp_path), "t", [rows], mode="name", physical=physical)

    with asking(ServedFolder(Storage(tmp_path))) as ask:
        assert ask.rows("SELECT * FROM t") == [{"col": {"a": 1, "b": [{"deep": "x"}, None]}}, {"col": None}]
        assert ask.rows("SELECT col['b'][1]['deep'] AS v FROM t WHERE col['a'] = 1") == [{"v": "x"}]


def test_a_file_that_is_replaced_by_one_with_other_names_is_read_anew(tmp_path):
    storage, files = Storage(tmp_path), [pa.table({"a": [1], "b": [2]})]
    write_mapped(storage, "t", files, mode="id", physical={"a": "a", "b": "b"})
    folder = ServedFolder(storage)
    with asking(folder) as ask:
        assert ask.rows("SELECT a, b FROM t") == [{"a": 1, "b": 2}]
        shutil.copytree(tmp_path / "t", tmp_path / "u")
        pq.write_table(
            pq.read_table(tmp_path / "t/0.parquet").rename_columns(["b", "a"]),
            tmp_path / "t/0.parquet",
            compression="none",
        )
        assert ask.rows("SELECT a, b FROM t") == [{"a": 1, "b": 2}]


def test_a_file_that_is_added_again_without_being_removed_never_brings_rows_back(tmp_path):
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("t"), rows_of_file(0, 10))
    add = next(
        found["add"]
        for line in (tmp_path / "t/_delta_log/00000000000000000000.json").read_text().splitlines()
        if "add" in (found := json.loads(line))
    )
    delete_rows(storage, "t", lambda *_: [0])
    with asking(ServedFolder(storage)) as ask:
        assert ask.rows("SELECT count(*) AS c FROM t") == [{"c": 9}]
        (tmp_path / "t/_delta_log/00000000000000000002.json").write_text(json.dumps({"add": add}) + "\n")
        with pytest.raises(Unavailable, match="The table t cannot be read"):
            ask.rows("SELECT count(*) AS c FROM t")


#: Changes of a file in the log, of which rows are deleted: its entries before, the next, and the rows that are left.
FOLLOWED = {
    "removed": ("some", ["remove"], 0),
    "removed without its vector": ("some", ["remove bare"], 9),
    "removed with an earlier vector": ("some twice", ["remove earlier"], 8),
    "changed": ("some", ["remove", "add more"], 8),
    "changed without the removal of its vector": ("some", ["remove bare", "add more"], None),
    "changed with the removal of an earlier vector": ("some twice", ["remove earlier", "add more"], None),
    "restored": ("some", ["remove", "add bare"], 10),
    "restored twice": ("some", ["remove", "add bare", "add more"], None),
    "restored without being removed": ("some", ["add bare"], None),
    "emptied, then restored": ("all", ["remove", "add bare"], 10),
    "emptied, then restored without being removed": ("all", ["add bare"], None),
    "emptied, then restored with another removal": ("all", ["remove bare", "add bare"], None),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_a_running_server_has_the_rows_of_a_new_one_when_a_file_changes(tmp_path, case):
    before, after, count = FOLLOWED[case]
    storage = Storage(tmp_path)
    write_deltalake(storage.child_uri("t"), rows_of_file(0, 10))
    actions = [_actions_of_file(storage)]
    write_deltalake(storage.child_uri("t"), rows_of_file(1, 10), mode="append")
    file = actions[0][0]["add"]["path"]
    for number in range({"some": 1, "some twice": 2, "all": 1}[before]):
        deleted = range(10 if before == "all" else number + 1)
        delete_rows(storage, "t", lambda path, _, deleted=deleted: deleted if path == file else [])
        actions.append(_actions_of_file(storage, file))
    delete_rows(storage, "t", lambda path, _: [7, 8] if path == file else [])
    more = _actions_of_file(storage, file)
    entry = tmp_path / f"t/_delta_log/{len(actions) + 1:020}.json"
    entry.unlink()
    known = {
        "remove": actions[-1][1],
        "remove bare": actions[0][1],
        "remove earlier": actions[-2][1],
        "add more": more[0],
        "add bare": actions[0][0],
    }

    running = ServedFolder(storage)
    running.snapshot("SELECT * FROM t")
    entry.write_text("".join(json.dumps(known[one]) + "\n" for one in after))
    for each in (running, ServedFolder(storage)):
        (table,) = each.snapshot("SELECT * FROM t")
        assert (table.problem is None) == (count is not None)
        with asking(each) as ask, nullcontext() if count is not None else pytest.raises(Unavailable, match="table t "):
            assert ask.rows("SELECT count(*) AS c FROM t WHERE n < 10") == [{"c": count}]


def _actions_of_file(storage, path=None):
    """Return the actions that add and remove a file of a table, or its only one, as it is."""
    files = read_state(storage, "t", DeltaTable(storage.child_uri("t")).version()).files.values()
    (add,) = (one for one in files if path in {None, one["path"]})
    key = {name: add[name] for name in ("path", "deletionVector") if name in add}
    return {"add": add}, {"remove": key | {"deletionTimestamp": 1, "dataChange": True}}


def test_a_column_that_a_file_lacks_never_gets_the_values_of_another():
    def with_ids(**ids):
        return pa.schema([pa.field(name, pa.int64(), metadata={"PARQUET:field_id": one}) for name, one in ids.items()])

    found, _ = live_rows.fit_to_file(with_ids(c="1", x="3", c__="4"), with_ids(c="2", c_="3"))

    assert found.field(1).name == "c_"
    assert len({*found.names}) == 3
    assert {found.field(0).name, found.field(2).name}.isdisjoint({"c", "c_"})


@pytest.mark.parametrize("mode", ["name", "id"])
def test_a_mapped_column_never_gets_the_bounds_of_a_part_of_another(tmp_path, mode):
    storage = Storage(tmp_path)
    starts = range(0, 400, 10)
    files = [
        pa.table({"q": list(range(start, start + 10)), "s": [{"x": number % 3} for number in range(10)]})
        for start in starts
    ]
    write_mapped(storage, "t", files, mode=mode, physical={"q": "s.x", "s": "s", "x": "x"})
    log = tmp_path / "t/_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            bounds = {"s": {"x": 0}}
            stats = {"numRecords": 10, "minValues": bounds, "maxValues": {"s": {"x": 2}}, "nullCount": bounds}
            action["add"]["stats"] = json.dumps(stats)
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    with asking(ServedFolder(storage)) as ask:
        assert ask.rows("SELECT q FROM t WHERE q = 155") == [{"q": 155}]
        log.write_text(log.read_text().replace('{\\"s\\": {\\"x\\": 0}}', '{\\"s.x\\": 0, \\"s\\": {\\"x\\": 0}}'))
        assert ask.rows("SELECT q FROM t WHERE q = 155") == [{"q": 155}]


def test_parts_of_a_mapped_column_are_read_when_its_name_is_the_same_in_files(tmp_path):
    storage = Storage(tmp_path)
    write_mapped(
        storage, "t", [pa.table({"q": [1], "s": [{"x": 2}]})], mode="name", physical={"q": "c", "s": "s", "x": "x"}
    )
    with asking(ServedFolder(storage)) as ask:
        assert ask.rows("SELECT q, s['x'] AS v FROM t") == [{"q": 1, "v": 2}]
