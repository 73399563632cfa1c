"""Nothing that a statement over materialized views returns, or fails with, depends on hidden rows of their source."""

from contextlib import ExitStack

import pytest

from tests.unit.engine.conftest import asking
from tests.unit.engine.test_hidden_worlds import outcome
from tests.unit.engine.view_worlds import CONDITIONS, HIDDEN, READABLE, statements, write_world


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(f"world {number}") for number in range(2)]
        yield [
            stack.enter_context(asking(write_world(number, folder), target_partitions=2))
            for number, folder in enumerate(folders)
        ]


def seeing(worlds, condition):
    filters = {"logs": (condition,), **dict.fromkeys(READABLE | HIDDEN, ())}
    # Only administrators may list definitions.
    return [world.seeing(filters).as_administrator() for world in worlds]


@pytest.mark.parametrize("view", READABLE)
def test_rows_of_a_view_are_those_of_visible_rows(worlds, view):
    """In the first world, nothing is hidden."""
    sql = f"SELECT * FROM {view} ORDER BY level, n, t, exe"

    found = [outcome(ask, sql) for ask in seeing(worlds, CONDITIONS[0])]

    assert found[0] == found[1] == outcome(worlds[0].as_administrator(), sql)
    assert isinstance(found[0], list)
    assert len(found[0]) >= 3


@pytest.mark.parametrize("view", HIDDEN)
def test_other_views_are_missing_tables(worlds, view):
    sql = "SELECT * FROM {}"
    ask, _ = seeing(worlds, CONDITIONS[0])

    kind, what, remedy = outcome(ask, sql.format(view))

    assert (kind, what.replace(f"named {view}.", "named absent."), remedy) == outcome(ask, sql.format("absent"))


@pytest.mark.parametrize("count", [30, pytest.param(2000, marks=pytest.mark.long)])
def test_statements_over_views_tell_nothing_of_hidden_rows(worlds, count):
    different, failed = [], 0
    for number, sql in enumerate(statements(seed=29, count=count)):
        condition = CONDITIONS[number % len(CONDITIONS)]
        first, second = (outcome(ask, sql) for ask in seeing(worlds, condition))
        failed += isinstance(first, tuple)
        if first != second:
            different.append((condition, sql[:300], first, second))

    assert different == []
    assert count / 10 < failed < count * 4 / 5
