"""What a one-minute roll-up costs, beside the direct query over the same rows: CPU seconds, printed, never judged.

The rows of the last minute are not in the view yet, as between two refreshes.
"""

import sys
import time
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.executors.views import check_definition, refresh_view
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.view_definitions import parse_view_statement
from tests.fakes.fixed_tables import FixedTables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROWS, FILES, SECONDS = 20_000_000, 40, 86_400
EXTRACT = "SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, key, count(*) AS n FROM events GROUP BY 1, 2"
CREATE = f"""CREATE MATERIALIZED VIEW per_minute WITH (extract_query = $${EXTRACT}$$, update_group = 1,
    count_src_query = 'SELECT count(*) AS count FROM events WHERE time BETWEEN {{begin}} AND {{end}}',
    merge_partitions_query = 'SELECT time_bin, key, sum(n) AS n FROM {{source}} GROUP BY 1, 2',
    time_column = 'time_bin')"""
ADMIN = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE, is_admin=True)


def _store(writer, random, rows, begin, seconds):
    times = np.sort(begin + (random.random(rows) * seconds * 1e6).astype(np.int64))
    columns = {"time": pa.array(times).cast(pa.timestamp("us", "UTC")), "key": random.integers(0, 5, rows)}
    table = pa.table(columns)
    request = WriteRequest(table="events", mode=WriteMode.CREATE_OR_APPEND, may_read=True)
    write = writer.open_write(request, table.schema)
    for batch in table.to_batches(max_chunksize=65536):
        write.write(batch)
    write.commit()


def _cost(tables, sql):
    """Return the least processor seconds of three runs, and the sum of all counts."""
    seconds, count = [], 0
    with closing(DataFusionEngine(FixedTables(tables), EngineSettings())) as engine:
        for _ in range(3):
            started = time.process_time()
            batches = list(engine.plan(StatementRequest(sql=sql), ADMIN).batches())
            seconds.append(time.process_time() - started)
            count = sum(sum(batch.column(2).to_pylist()) for batch in batches)
    return min(seconds), count


def test_a_roll_up_costs_a_fraction_of_the_direct_query(tmp_path, capsys):
    storage, random, begin = Storage(tmp_path / "lake"), np.random.default_rng(1), 1_790_000_000_000_000
    writer, settings = LakeWriter(storage, interval_seconds=0), EngineSettings()
    for number in range(FILES):
        part = SECONDS // FILES
        _store(writer, random, ROWS // FILES, begin + number * part * 10**6, part)
    view = parse_view_statement(CREATE).definition
    facts = check_definition(Lake(storage).snapshot(), settings, view)
    schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(facts["schema"])))
    Tables(storage).create_view(view, schema, source="events", replaces=False, owner="ann", updated_by="ann")

    started = time.process_time()
    refresh_view(storage, settings, view.name)
    refreshed = time.process_time() - started
    _store(writer, random, ROWS * 60 // SECONDS, begin + SECONDS * 10**6, 60)
    tables = list(Lake(storage).snapshot("events per_minute"))
    direct, counted = _cost(tables, EXTRACT)
    cost, sum_of_view = _cost(tables, "SELECT time_bin, key, n FROM per_minute")

    assert counted == sum_of_view
    with capsys.disabled():
        print(
            f"\n{counted:,} rows: direct {direct:.3f} s, view {cost:.3f} s ({direct / cost:.0f} times), first refresh "
            f"{refreshed:.3f} s",
            file=sys.stderr,
        )
