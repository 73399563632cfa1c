"""A server records itself until its end, by the door of all exports; who asks its lake finds what it did."""

import logging
import platform

import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.jsonb import decode, encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.recorder.recorder import describe_process
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.servers import ENDLESS
from tests.fakes.waiting import wait_until
from tests.unit.engine.conftest import asking

pytestmark = pytest.mark.integration

SAMPLES = 4
SAMPLE_COUNT = "SELECT count(*) AS n FROM measures WHERE name = 'process_resident_bytes'"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """What asks the lake of a server that has ended while a statement ran, and the server's metrics."""
    folder = tmp_path_factory.mktemp("lake")
    settings = ServerSettings(
        lake=folder, port=0, http_port=0, disable_auth=True, telemetry_interval_seconds=0.2, drain_timeout_seconds=0
    )
    log = logging.getLogger("child")
    log.setLevel(logging.INFO)
    with ServerStack(settings, environ={}, program="recording server") as server, FlightSQLClient(server.uri) as client:
        log.info("started", extra={"step": 1})
        wait_until(lambda: client.query_arrow(SAMPLE_COUNT)["n"].to_pylist() >= [SAMPLES], "samples were taken")
        with client.open_query(ENDLESS) as reader:
            next(reader)
            log.error("last words, Bearer %s", "secret-key")
            server.stop()
            with pytest.raises(MicromegasError):
                list(reader)
    with asking(Lake(Storage(folder))) as ask:
        yield lambda sql: [tuple(row.values()) for row in ask.rows(sql)], server.metrics.registry


def test_the_log_can_be_queried(recorded):
    rows = recorded[0]("SELECT exe, level, msg, properties FROM log_entries WHERE target = 'child' ORDER BY time")

    of_scope = {"otel.scope.name": "child"}
    assert rows == [
        ("recording server", 4, "started", encode({"step": "1", **of_scope})),
        ("recording server", 2, "last words, Bearer ***", encode(of_scope)),
    ]


def test_measures_can_be_queried(recorded):
    rows = recorded[0](
        "SELECT name, unit, target, count(*) AS n, max(value) AS highest FROM measures "
        "WHERE name IN ('process_resident_bytes', 'process_cpu_usage') GROUP BY name, unit, target ORDER BY name"
    )

    (usage, memory) = rows
    target = "micromegas_jupyter.process_sampler"
    assert usage[:3] == ("process_cpu_usage", "percent", target)
    assert memory[:3] == ("process_resident_bytes", "bytes", target)
    # A rate needs two samples, so there is one less of it.
    assert usage[3] == memory[3] - 1 >= SAMPLES - 1
    assert memory[4] > 10_000_000


def test_the_server_is_one_process_in_every_table(recorded):
    query = recorded[0]
    tables = ("log_entries", "measures", "blocks", "streams")
    (process,) = query("SELECT process_id, exe, username, realname, computer, distro, cpu_brand FROM processes")
    ((properties,),) = query("SELECT properties FROM processes")
    ids = {row for table in tables for row in query(f"SELECT DISTINCT process_id FROM {table}")}
    tags = query("SELECT tags FROM streams ORDER BY 1")

    known = describe_process("recording server")
    names = ("service.name", "process.owner", "user.full_name", "host.name", "os.description", "host.cpu.model.name")
    assert list(process[1:]) == [known[name] or known["process.owner"] for name in names]
    assert ids == {process[:1]}
    assert tags == [(["log"],), (["metrics"],)]
    assert decode(properties)["otel.resource.process.runtime.version"] == platform.python_version()


def test_the_audit_of_what_was_ended_is_kept_and_records_of_the_server_leave_none(recorded):
    query, registry = recorded
    audited = "SELECT count(*) AS n FROM log_entries WHERE target = 'flightsql_query_audit' AND msg LIKE "

    assert query(f"{audited}'%generate_series%'") == [(1,)]
    assert query('SELECT count(*) AS n FROM log_entries WHERE msg LIKE \'%"action":"export"%\'') == [(0,)]
    exports = {"signal": "logs", "outcome": "ok"}
    assert registry.get_sample_value("micromegas_server_otlp_exports_total", exports) in {None, 0.0}
