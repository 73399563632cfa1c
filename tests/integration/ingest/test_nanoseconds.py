"""Spans and histograms that clients send over Flight are the same wherever they are read, to the nanosecond."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from micromegas.auth import StaticTokenAuthProvider as UpstreamAuth
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.cli.query_commands import RowOptions, write_rows
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.notebook.formats import choose_format
from micromegas_jupyter.telemetry.tables import HISTOGRAMS
from tests.fakes.delta_tables import delete_rows
from tests.fakes.telemetry_rows import NOON
from tests.integration.ingest.lake_server import lake_server
from tests.unit.engine.test_increases import mapped_rows, points
from tests.unit.engine.test_span_times import SPANS, shifted, spans

pytestmark = pytest.mark.integration

TIMES = [(at, at + 1_007 * at) for at in range(1, 2_000, 333)]
READ = f"SELECT start_time, end_time, duration FROM {SPANS} ORDER BY start_time"
ID = "00000000-0000-4000-8000-000000000029"
FORMATS = ("csv", "json", "jsonl", "table", "parquet")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with lake_server(tmp_path_factory.mktemp("lake")) as running, running.client("alice") as client:
        for part in (TIMES[::2], TIMES[1::2]):
            assert client.bulk_ingest(SPANS, spans(*part, process_id=ID)).record_count == len(part)
        yield running


def through_us(server, sql=READ):
    with server.client("alice") as client:
        return client.query_arrow(sql)


def through_view_instance(server):
    return through_us(server, READ.replace(SPANS, f"view_instance('{SPANS}', '{ID}')"))


def through_upstream(server):
    client = UpstreamClient(server.uri, auth_provider=UpstreamAuth("alice"))
    return pa.Table.from_pandas(client.query(READ), preserve_index=False)


def compacted(server):
    optimize(Storage(server.root), SPANS)
    return through_us(server)


def with_deletion_vectors(server):
    with server.client("alice") as client:
        client.bulk_ingest(SPANS, spans(*[(time, time) for time in range(5)]))
    delete_rows(Storage(server.root), SPANS, lambda _, rows: range(5) if rows == 5 else ())
    return through_us(server)


@pytest.mark.parametrize(
    "read", [through_us, through_view_instance, through_upstream, compacted, with_deletion_vectors]
)
def test_spans_are_as_long_as_their_duration(server, read):
    rows = read(server)

    assert shifted(rows.select(["start_time", "end_time"])) == TIMES
    assert rows["duration"].to_pylist() == [end - begin for begin, end in TIMES]


def printed(table, file_format):
    output = io.BytesIO() if file_format == "parquet" else io.StringIO(newline="")
    write_rows(table.schema, table.to_batches(), output, RowOptions(file_format=file_format, max_column_width=0))
    return output.getvalue()


def test_exported_spans_have_all_digits(server):
    rows = through_us(server)
    texts = [tuple(f"{NOON:%FT%T}.{time:09}Z" for time in pair) for pair in TIMES]

    for found in (csv.DictReader(io.StringIO(printed(rows, "csv"))), json.loads(printed(rows, "json"))):
        assert [(row["start_time"], row["end_time"]) for row in found] == texts


def test_uploaded_histograms_are_what_was_sent_in_each_format(server):
    ((_, sent),) = mapped_rows(points([[5.0, 50.0], [0.5]]))
    with server.client("alice") as client:
        assert client.bulk_ingest(HISTOGRAMS.name, pa.Table.from_batches([sent])).record_count == 2
    rows = through_us(server, "SELECT time, start_time, histogram FROM histograms ORDER BY time")
    increases = through_us(server, "SELECT histogram['count'] AS n FROM histogram_increases ORDER BY time")

    histograms = sent["histogram"].to_pylist()
    assert rows["histogram"].to_pylist() == histograms
    assert rows["start_time"].cast(pa.int64()).to_pylist() == sent["start_time"].cast(pa.int64()).to_pylist()
    assert increases["n"].to_pylist() == [2, 1]
    found = {kind: printed(rows, kind) for kind in FORMATS}
    assert [row["histogram"] for row in json.loads(found["json"])] == histograms
    assert [json.loads(line)["histogram"] for line in found["jsonl"].splitlines()] == histograms
    assert [json.loads(row["histogram"]) for row in csv.DictReader(io.StringIO(found["csv"]))] == histograms
    assert pq.read_table(io.BytesIO(found["parquet"]))["histogram"].to_pylist() == histograms
    assert all(json.dumps(histogram) in found["table"] for histogram in histograms)
    cells = choose_format(rows.schema.field("histogram"), rows["histogram"]).texts(rows["histogram"])
    for cell, histogram in zip(cells, histograms, strict=True):
        assert json.dumps(histogram).startswith(cell.removesuffix("…"))
        assert '"count": ' in cell
