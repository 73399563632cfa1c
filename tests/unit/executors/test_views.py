"""Materialized views: their rows are those of a direct query, whatever happens to their source."""

import datetime as dt

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.executors.views import check_definition, refresh_view
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition
from tests.fakes.telemetry_rows import log_batch

ADMIN = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE, is_admin=True)
SETTINGS = EngineSettings()
EXTRACT = "SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, msg, count(*) AS n FROM log_entries GROUP BY 1, 2"
MERGE = "SELECT time_bin, msg, sum(n) AS n FROM {source} GROUP BY 1, 2"


def definition(**changed):
    values = {
        "name": "per_minute",
        "extract_query": EXTRACT,
        "count_src_query": "SELECT count(*) AS count FROM log_entries",
        "merge_partitions_query": MERGE,
        "update_group": 1,
        "time_column": "time_bin",
        "sql": "CREATE MATERIALIZED VIEW per_minute",
    }
    return ViewDefinition(**{**values, **changed})


class Views:
    """A lake with a view, and statements over it."""

    def __init__(self, folder):
        self.storage = Storage(folder)
        self.writer = LakeWriter(self.storage, interval_seconds=0)
        self.tables = Tables(self.storage)
        self.lake = Lake(self.storage)
        self.engine = DataFusionEngine(self, SETTINGS)
        self.sql = None

    def snapshot(self, _sql=None):
        return self.lake.snapshot(self.sql)

    def store(self, *numbers):
        self.writer.append("log_entries", log_batch(list(numbers))).result()

    def create(self, view=None, *, replaces=False):
        view = view or definition()
        facts = check_definition(self.lake.snapshot(), SETTINGS, view)
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(facts["schema"])))
        self.tables.create_view(view, schema, source=facts["source"], replaces=replaces, owner="ann")

    def refresh(self, name="per_minute", **options):
        return refresh_view(Storage(self.storage.uri), SETTINGS, name, **options)

    def rows(self, sql, **options):
        self.sql = sql
        planned = self.engine.plan(StatementRequest(sql=sql, **options), ADMIN)
        rows = pa.Table.from_batches(list(planned.batches()), planned.schema).to_pylist()
        return sorted(tuple(row.values()) for row in rows)

    def of_view(self, **options):
        return self.rows("SELECT CAST(time_bin AS TIMESTAMP) AS t, msg, n FROM per_minute", **options)

    def direct(self):
        return self.rows(f"SELECT CAST(time_bin AS TIMESTAMP) AS t, msg, n FROM ({EXTRACT}) AS direct")


@pytest.fixture
def views(tmp_path):
    opened = Views(tmp_path / "lake")
    opened.store(0, 1, 2)
    yield opened
    opened.writer.close()


def test_a_view_has_rows_before_its_first_refresh(views):
    views.create()

    assert views.of_view() == views.direct() != []


def test_a_view_has_rows_that_came_since_it_was_refreshed(views):
    views.create()
    views.refresh()
    views.store(1, 7)

    assert views.of_view() == views.direct()
    views.refresh()
    assert views.of_view() == views.direct()
    assert views.lake.view("per_minute").watermark == 2
