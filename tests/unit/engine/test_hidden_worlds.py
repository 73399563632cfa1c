"""Nothing that a statement returns, or fails with, depends on rows that its caller must not see."""

from contextlib import ExitStack
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, Unavailable
from tests.fakes.fixed_tables import NOON, data_files
from tests.unit.engine.conftest import asking
from tests.unit.engine.hidden_worlds import CONDITIONS, FILES, HIDING_NOTHING, WORLDS, statements, write_world


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(f"world {number}") for number in WORLDS]
        yield [
            stack.enter_context(asking(write_world(number, folder), target_partitions=2))
            for number, folder in zip(WORLDS, folders, strict=True)
        ]


def seeing(worlds, number):
    filters = {"logs": (CONDITIONS[number % len(CONDITIONS)],), "other": ("exe = 'x'",)}
    return [world.seeing(filters) for world in worlds]


def outcome(ask, sql):
    """Return all that a caller sees: the rows, or the whole error."""
    try:
        return [str(row) for row in ask.rows(sql)]
    except MicromegasError as error:
        return type(error), error.what, error.remedy


#: In these plans, a workaround changes expressions or joins.
CHANGED = (
    "SELECT count(*) AS n FROM logs WHERE {} AND (x NOT IN (1, 5) OR x NOT IN (2, 3))",
    "SELECT id, x NOT IN (1, NULL) OR x NOT IN (2, 3) AS n FROM logs WHERE {} ORDER BY id",
    "SELECT id FROM logs WHERE {} AND (level NOT IN (SELECT n FROM other WHERE n > 1) OR id = 3) ORDER BY id",
    "SELECT n, count(*) FROM other LEFT JOIN (SELECT * FROM logs WHERE {} AND x = 1) AS l ON id = log_id GROUP BY n, x",
    "SELECT log_id FROM other LEFT JOIN logs ON id = log_id AND {} WHERE n > 3 OR x > 3 ORDER BY log_id",
)


def test_statements_that_may_fail_tell_nothing_of_hidden_rows(worlds, pytestconfig):
    count = 5000 if pytestconfig.getoption("--long") else 30
    different, failed = [], 0
    for number, sql in enumerate(statements(seed=25, count=count)):
        found = [outcome(ask, sql) for ask in seeing(worlds, number)]
        failed += isinstance(found[0], tuple)
        # In the first world, some conditions hide nothing. They may still leave out rows on which a statement fails.
        if CONDITIONS[number % len(CONDITIONS)] in HIDING_NOTHING:
            without_conditions = outcome(worlds[0], sql)
            are_rows = isinstance(without_conditions, list) and isinstance(found[0], list)
            found += [without_conditions] if are_rows else []
        if any(one != found[0] for one in found):
            different.append((CONDITIONS[number % len(CONDITIONS)], sql[:300], str(found)[:400]))

    assert different == []
    assert count / 5 < failed < count * 4 / 5


@pytest.mark.parametrize("condition", ["level = 99", "id > 4000", "at < '1990-01-01'", "level = 2"])
@pytest.mark.parametrize("changed", CHANGED)
def test_whether_files_are_left_does_not_decide_if_a_plan_can_be_changed(worlds, changed, condition):
    """In the first world, bounds rule out all files; in the second, hidden rows keep some."""
    found = [outcome(ask, changed.format(condition)) for ask in seeing(worlds, 0)]

    assert all(isinstance(one, list) for one in found)
    assert sorted(found[0]) == sorted(found[1])


HUGE = "_" * 20_000
#: How a reader may ask whether a hidden message is at least as great as `{}`.
ATTEMPTS = (
    "SELECT count(*) FROM log_entries WHERE msg LIKE '{}%" + HUGE + "'",
    "SELECT count(*) FROM log_entries WHERE msg ILIKE '{}%" + HUGE + "'",
    "SELECT count(*) FROM log_entries WHERE msg >= '{}' AND msg LIKE '" + HUGE + "'",
    "SELECT count(*) FROM log_entries WHERE msg ~ '(.{{0,1000}}){{0,900}}x' AND msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE 1 / 0 = 1 AND msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE CAST(exe AS INT) = 1 AND msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE CASE WHEN msg >= '{}' THEN 1 / (level - 4) = 0 ELSE TRUE END",
    "SELECT 1 / (level - 4) AS n FROM log_entries WHERE msg >= '{}' LIMIT 1",
    "SELECT count(*) FROM log_entries WHERE msg IN ('{}', '~') AND make_array(level)[1 / (level - 4)] = 1",
    "SELECT count(*) FROM log_entries WHERE CAST(level AS DECIMAL(1, 1)) = 1 AND msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE time + INTERVAL '9999' YEAR > now() AND msg >= '{}'",
    "SELECT max(msg) FROM log_entries WHERE msg >= '{}' HAVING CAST(min(exe) AS INT) = 1",
    "SELECT 1 FROM log_entries a JOIN log_entries b ON a.msg = b.msg AND 1 / (b.level - 4) = 1 WHERE b.msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE msg ~ '(.{{0,1000}}){{0,900}}x' OR msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE (1 / (level - 4) = 1) IS NOT TRUE AND msg >= '{}'",
    "SELECT count(*) FROM log_entries WHERE msg LIKE '" + HUGE + "' OR msg = '{}'",
    "SELECT msg FROM log_entries WHERE CAST(exe AS INT) > 0 ORDER BY msg >= '{}' LIMIT 1",
)


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A caller who sees one program's rows: in each file there is a message of another program, too."""
    folder = tmp_path_factory.mktemp("victim")
    schema = pa.schema(
        [("exe", pa.string()), ("time", pa.timestamp("us", "UTC")), ("level", pa.int32()), ("msg", pa.string())]
    )
    rows = [{"exe": "x", "time": NOON, "level": 4, "msg": "!"}, {"exe": "y", "time": NOON, "level": 4, "msg": "cab"}]
    files = data_files(*(folder / f"{number}.parquet" for number in range(FILES)))
    for file in files:
        pq.write_table(pa.Table.from_pylist(rows, schema), file.path)
    known = {"rows": 2, "min.msg": "!", "max.msg": "cab", "nulls.msg": 0}
    table = TableSnapshot(name="log_entries", schema=schema, files=files, bounds=pa.Table.from_pylist([known] * FILES))
    with asking([table]) as asker:
        yield asker.seeing({"log_entries": ("exe = 'x'",)})


def recover(ask, attempt):
    """Return how much of the greatest message can be told from a statement's outcomes, letter by letter."""
    found = ""
    while len(found) < 3:
        answers = {letter: outcome(ask, attempt.format(found + letter)) for letter in "abcd"}
        equal = [letter for letter, answer in answers.items() if answer == answers["a"]]
        if len(equal) == len(answers):
            return found
        found += equal[-1]
    return found


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=range(len(ATTEMPTS)))
def test_a_hidden_message_cannot_be_recovered_by_what_fails(victim, attempt):
    assert recover(victim, attempt) == ""


def test_a_long_pattern_fails_whatever_is_in_the_table(victim):
    outcomes = [outcome(victim, ATTEMPTS[0].format(prefix)) for prefix in ("", "!", "cab", "zz")]

    assert outcomes == [outcomes[0]] * 4
    assert outcomes[0][0] is InvalidStatement


@pytest.mark.parametrize("failing", ["lower(msg) = 'a7'", "1 / x > 5", "regexp_like(msg, '^z$')"])
def test_conditions_that_cannot_fail_still_rule_out_files_behind_the_barrier(tmp_path, failing):
    """The files that the conditions rule out are gone, so reading one fails."""
    (logs, _) = write_world(0, tmp_path)
    files = [file if number in {10, 11} else DataFile("/nowhere/x.parquet") for number, file in enumerate(logs.files)]

    with asking([replace(logs, files=tuple(files))]) as asker:
        ask = asker.seeing({"logs": ("exe = 'x'",)})
        for condition in ("id >= 50 AND id < 60", "(id = 50 OR id IN (58, 59))", "id > 49 AND level < 9 AND id <= 59"):
            assert ask.rows(f"SELECT count(*) AS n FROM logs WHERE {failing} AND {condition}")[0]["n"] < 10
        with pytest.raises(Unavailable):
            ask.rows(f"SELECT count(*) FROM logs WHERE {failing} OR id = 50")
