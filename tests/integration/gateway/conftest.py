"""Servers whose statements another engine runs."""

from contextlib import contextmanager
from dataclasses import replace

import pytest

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.gateway.backend import Engine, EngineAddress, EngineSettings
from micromegas_jupyter.gateway.tables import EngineTables
from tests.fakes.validator import BOB, FakeValidator
from tests.integration.flight_harness import example_tables, running_server

REWRITING = "micromegas_jupyter.gateway.spark"


def with_role(filters):
    """Return a validator by which bob may read some tables, each under one of its conditions."""
    validator = FakeValidator()
    validator.known["bob"] = replace(BOB, roles=("role",), table_access=TableAccess(filters=filters))
    return validator


@contextmanager
def gateway(uri, *, dialect="datafusion", filters=None, silence_seconds=600.0, worker=None, **settings):
    """Run a server before the engine at an address; `filters` are the conditions of bob's role by table."""
    tables = EngineTables(
        Engine(EngineSettings(address=EngineAddress.parse(uri), dialect=dialect, silence_seconds=silence_seconds))
    )
    validator = FakeValidator() if filters is None else with_role(filters)
    with running_server(
        engine=tables, validator=validator, worker={"preloaded": REWRITING, **(worker or {})}, **settings
    ) as front:
        yield front


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Another server of this package, with two tables, that asks nobody who they are."""
    with running_server(tables=example_tables(tmp_path_factory.mktemp("tables")), is_open=True) as found:
        yield found


@pytest.fixture(scope="module")
def front(engine):
    """A server before it, whose caller bob sees one process of `log_entries` and nothing else."""
    with gateway(engine.uri, filters={"log_entries": ("process_id = 'p1'",)}) as found:
        yield found
