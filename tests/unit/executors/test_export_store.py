"""Exports into lakes in which a name of the data model's tables has been taken by a user's table."""

from concurrent.futures import Future

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.executors.ingest_worker import ExportStore
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.types import stored_definition, stored_schema
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.otlp.exchange import ExportRequest, Signal
from micromegas_jupyter.telemetry.tables import HISTOGRAMS, MEASURES
from tests.integration.otlp.exporting import export
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_increases import counter, points

OF_A_USER = {
    "other columns": pa.schema({"bin": pa.float64(), "n": pa.int64()}),
    "the same name, another type": stored_schema(
        pa.schema({"time": pa.timestamp("us", "UTC"), "histogram": pa.string()})
    ),
    "a type within the struct": stored_definition(HISTOGRAMS).set(
        stored_definition(HISTOGRAMS).get_field_index("histogram"),
        pa.field("histogram", pa.struct({"count": pa.int32()})),
    ),
}


@pytest.mark.parametrize("case", OF_A_USER)
def test_other_metrics_are_stored_beside_a_user_s_table_of_histograms(tmp_path, case):
    storage = Storage(tmp_path / "lake")
    Tables(storage).add(HISTOGRAMS.name, OF_A_USER[case], owner="ann")
    writer = LakeWriter(storage, interval_seconds=0)
    store = ExportStore(writer)
    try:
        for metrics, stored in ((([5.0],), 2), (([5.0], [7.0, 8.0]), 2), (([5.0],), 0)):
            done = Future()
            sent = [points(metrics, name="latency"), *([counter([1.0, 2.0])] if stored else [])]
            body = export("metrics", *sent).SerializeToString()
            store.store(ExportRequest(signal=Signal.METRICS, body=body), done.set_result)
            report = done.result(60)
            assert not isinstance(report, BaseException), report
            assert (report.stored, report.refused) == (stored, len(metrics))
            response = ExportMetricsServiceResponse.FromString(report.answer).partial_success
            assert response.rejected_data_points == len(metrics)
            assert "table histograms" in response.error_message
        with asking(Lake(storage)) as ask:
            assert ask.rows(f"SELECT count(*) AS n FROM {MEASURES.name}") == [{"n": 4}]
    finally:
        writer.close()
    table = DeltaTable(storage.child_uri(HISTOGRAMS.name))
    assert (table.version(), [one.name for one in table.schema().fields]) == (0, OF_A_USER[case].names)
