"""The process that stores rows is killed, or shares its lake with another server; a lake may lie in a bucket."""

import os
import signal
import uuid

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.errors import ServerUnavailable, UsageError
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.waiting import wait_until
from tests.integration.ingest.lake_server import append_command, lake_server
from tests.integration.ingest.test_durability import _Stalled
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server

pytestmark = pytest.mark.integration

ROWS = pa.table({"id": [1]})


def _kill_ingest_process(server):
    def find():
        # Maintenance, which begins after 15 s, has lowered the priority of its executors.
        found = [one for one in list(server.flight.pool._detached) if not one.is_reniced]
        return found[0] if len(found) == 1 else None

    executor = wait_until(find, "one process stores rows")
    os.kill(executor.process.pid, signal.SIGKILL)
    wait_until(lambda: executor not in server.flight.pool._detached, "the front knows that the process has ended")


def test_a_killed_ingest_process_stores_nothing_twice_and_is_followed_by_another(tmp_path):
    with lake_server(tmp_path) as server, server.client("alice") as alice:
        ingest_id = str(uuid.uuid4())
        alice.bulk_ingest("kept", ROWS, mode="create", ingest_id=ingest_id)
        _kill_ingest_process(server)

        alice.bulk_ingest("kept", ROWS, mode="create", ingest_id=ingest_id)
        alice.bulk_ingest("kept", ROWS)

        assert server.column("SELECT count(*) FROM kept") == [2]


def test_a_call_whose_process_is_killed_is_told_that_nothing_was_stored(tmp_path):
    with lake_server(tmp_path) as server, server.client("alice") as alice:
        alice.bulk_ingest("kept", ROWS, mode="create")
        call = _Stalled(server.flight.channel, append_command("kept"))
        wait_until(lambda: server.flight.metric("ingests_running") == 1, "the call has begun")
        _kill_ingest_process(server)

        error = call.finish()

        assert type(error) is ServerUnavailable
        assert error.what.endswith("none of these was stored.")
        assert server.column("SELECT count(*) FROM kept") == [1]


def test_two_servers_on_one_lake_see_each_others_commits(tmp_path):
    with (
        lake_server(tmp_path) as one,
        lake_server(tmp_path) as other,
        one.client("alice") as alice,
        other.client("alice") as bob,
    ):
        alice.bulk_ingest("shared", ROWS, mode="create")
        assert other.column("SELECT id FROM shared") == [1]
        bob.bulk_ingest("shared", ROWS)
        assert one.column("SELECT count(*) FROM shared") == [2]
        with pytest.raises(UsageError, match="There is a table shared already"):
            bob.bulk_ingest("shared", ROWS, mode="create")
        bob.drop_table("shared")
        with pytest.raises(UsageError, match=r"There is no table|was dropped"):
            alice.bulk_ingest("shared", ROWS)


def test_a_server_keeps_its_lake_in_a_bucket(monkeypatch):
    with moto_server() as port:
        s3 = FaultyS3(port)
        for name, value in s3.environ.items():
            monkeypatch.setenv(name, value)
        settings = ServerSettings(
            lake=f"s3://{BUCKET}/lake", port=0, no_http=True, disable_auth=True, telemetry_interval_seconds=0.2
        )
        with ServerStack(settings, environ={}) as server, FlightSQLClient(server.uri) as client:
            client.bulk_ingest("kept", pa.table({"id": [1, 2]}), mode="create")
            client.bulk_ingest("kept", ROWS)

            assert client.query_arrow("SELECT sum(id) AS n FROM kept").to_pydict() == {"n": [4]}
            rule = client.query("SELECT deny_queries('sql LIKE ''%forbidden%''', 'a test')").iloc[0, 0]
            assert client.query("SELECT rule_id FROM list_query_denials()").iloc[0, 0] == rule
            wait_until(
                lambda: client.query_arrow("SELECT count(*) AS n FROM log_entries")["n"][0].as_py() > 0,
                "the server has recorded its log",
            )
        s3.close()
