"""Sail behind the gateway tells nothing of hidden rows by what fails."""

from micromegas_jupyter.config.server import EngineDialect
from tests.integration.gateway import sail
from tests.unit.engine.hidden_worlds import WORLDS, write_world
from tests.unit.gateway.hidden_worlds import differences


class _World:
    """The tables of one world in an engine."""

    def __init__(self, engine, number, folder):
        self._engine = engine
        self._number = number
        for table in write_world(number, folder):
            engine.run(f"CREATE TABLE {table.name}_{number} USING parquet LOCATION '{folder / table.name}'")

    def run(self, text):
        return self._engine.run(
            text.replace("`logs`", f"`logs_{self._number}`").replace("`other`", f"`other_{self._number}`")
        )


def test_statements_that_may_fail_tell_nothing_of_hidden_rows(tmp_path, pytestconfig):
    is_long = pytestconfig.getoption("--long")
    count = 5000 if is_long else 30
    with sail.running(tmp_path) as engine:
        worlds = [_World(engine, number, tmp_path / str(number)).run for number in WORLDS]
        different, succeeded, failed = differences(worlds, EngineDialect.SPARK, count)

    assert different == []
    assert succeeded > count / 10
    assert failed or not is_long
