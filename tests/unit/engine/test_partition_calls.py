"""Where a statement calls a function that changes partitions, and where it only looks like it."""

import pytest

from micromegas_jupyter.engine.partition_calls import find_partition_call

CALL = "retire_partitions('view', 'global', '2024-01-01', '2024-01-02')"


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT 1 -- FROM {CALL}",
        f"SELECT 1 /* /* */ FROM {CALL} */",
        "SELECT '{}'".format(CALL.replace("'", "''")),
        f"SELECT $${CALL}$$",
        f"SELECT $a$ $$ {CALL}$a$",
        'SELECT "retire_partitions" FROM t',
        "WITH retire_partitions AS (SELECT 1) SELECT * FROM retire_partitions",
        f"EXPLAIN SELECT * FROM {CALL}",
        f"/* x */ explain analyze SELECT * FROM {CALL}",
    ],
)
def test_what_only_looks_like_a_call_changes_nothing(sql):
    assert find_partition_call(sql) is None


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT * FROM {CALL}",
        f"SELECT * FROM {CALL.replace('(', ' /* x */ (').upper().replace('VIEW', 'view')}",
        f"SELECT E'\\'' FROM {CALL}",
        f"WITH a AS (SELECT * FROM {CALL}) SELECT 1 -- '",
        f"SELECT 1 WHERE EXISTS (SELECT 1 FROM {CALL})",
    ],
)
def test_a_call_is_found_wherever_it_is(sql):
    found = find_partition_call(sql)

    assert found is not None
    assert (found.function, found.view_set) == ("retire_partitions", "view")
