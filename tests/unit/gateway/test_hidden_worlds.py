"""A bare DataFusion behind the gateway tells nothing of hidden rows by what fails."""

import pytest
from datafusion import SessionConfig, SessionContext

from micromegas_jupyter.config.server import EngineDialect
from tests.unit.engine.hidden_worlds import WORLDS, write_world
from tests.unit.gateway.hidden_worlds import differences


@pytest.fixture(scope="module", params=["false", "true"], ids=["above the reader", "pushed into the reader"])
def engines(request, tmp_path_factory):
    """An engine for each world, with statistics of files, row groups and pages."""
    found = []
    for number in WORLDS:
        folder = tmp_path_factory.mktemp(f"world {number}")
        options = {"datafusion.execution.parquet.pushdown_filters": request.param}
        context = SessionContext(SessionConfig(options).with_target_partitions(2))
        for table in write_world(number, folder):
            context.register_parquet(table.name, str(folder / table.name))
        found.append(lambda text, context=context: context.sql(text).to_arrow_table())
    return found


def test_statements_that_may_fail_tell_nothing_of_hidden_rows(engines, pytestconfig):
    count = 5000 if pytestconfig.getoption("--long") else 15
    different, succeeded, failed = differences(engines, EngineDialect.DATAFUSION, count)

    assert different == []
    assert succeeded > count / 4
    assert failed > count / 100
