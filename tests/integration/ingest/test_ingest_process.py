"""The process that stores rows is killed, or shares its lake with another server; a lake may lie in a bucket."""

import os
import signal
import uuid
from contextlib import contextmanager

import pyarrow as pa
import pytest
import requests

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.errors import ServerUnavailable, TableExists, Unavailable, UsageError
from micromegas_jupyter.wiring.server import ServerStack
from tests.fakes.waiting import wait_until
from tests.integration.ingest.lake_server import append_command, lake_server
from tests.integration.ingest.test_durability import _Stalled
from tests.integration.lakehouse.faulty_s3 import BUCKET, FaultyS3, moto_server
from tests.integration.lakehouse.role_credentials import role_credentials

pytestmark = pytest.mark.integration

ROWS = pa.table({"id": [1]})


def _kill_ingest_process(server):
    def find():
        # Maintenance, which begins after 15 s, has lowered the priority of its executors.
        found = [one for one in list(server.flight.pool._detached) if not one.niceness]
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
        assert error.what.endswith("none of these rows were stored.")
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
        with pytest.raises(TableExists, match="shared already exists"):
            bob.bulk_ingest("shared", ROWS, mode="create")
        bob.drop_table("shared")
        with pytest.raises(UsageError, match=r"There is no table|was dropped"):
            alice.bulk_ingest("shared", ROWS)


@pytest.fixture(scope="module")
def moto():
    with moto_server() as port:
        yield port


@pytest.fixture
def s3(moto, monkeypatch):
    proxy = FaultyS3(moto)
    for name, value in proxy.environ.items():
        monkeypatch.setenv(name, value)
    yield proxy
    proxy.close()


@contextmanager
def server_on_bucket():
    settings = ServerSettings(
        lake=f"s3://{BUCKET}/{uuid.uuid4().hex}",
        port=0,
        http_port=0,
        disable_auth=True,
        telemetry_interval_seconds=0.2,
    )
    with ServerStack(settings, environ={}) as server, FlightSQLClient(server.uri) as client:
        yield server, client


@pytest.mark.usefixtures("s3")
def test_a_server_keeps_its_lake_in_a_bucket():
    with server_on_bucket() as (_, client):
        client.bulk_ingest("kept", pa.table({"id": [1, 2]}), mode="create")
        client.bulk_ingest("kept", ROWS)

        assert client.query_arrow("SELECT sum(id) AS n FROM kept").to_pydict() == {"n": [4]}
        rule = client.query("SELECT deny_queries('sql LIKE ''%forbidden%''', 'a test')").iloc[0, 0]
        assert client.query("SELECT rule_id FROM list_query_denials()").iloc[0, 0] == rule
        wait_until(
            lambda: client.query_arrow("SELECT count(*) AS n FROM log_entries")["n"][0].as_py() > 0,
            "the server has recorded its log",
        )


def is_ready(server, *, but=None):
    """Whether the server is ready, or is not `but` for this reason; a busy machine may not answer in time."""
    answer = requests.get(f"{server.http_url}/ready", timeout=30)
    return answer.json().get("reason") == but and answer.ok == (but is None)


@pytest.mark.parametrize("fault", ["expired", 403])
def test_credentials_that_a_bucket_refuses_are_named_and_work_again_once_it_takes_them(s3, fault):
    with server_on_bucket() as (server, client):
        client.bulk_ingest("kept", ROWS, mode="create")
        wait_until(lambda: is_ready(server), "the server is ready")
        if fault == "expired":
            s3.valid_key = "renewed"
        else:
            s3.fault = lambda method, path: fault
        for call in (
            lambda: client.query_arrow("SELECT * FROM kept"),
            lambda: client.query_arrow("SELECT * FROM information_schema.tables"),
            lambda: client.bulk_ingest("kept", ROWS, ingest_id="again"),
            lambda: client.bulk_ingest("other", ROWS, mode="create"),
            lambda: client.drop_table("kept"),
        ):
            with pytest.raises(Unavailable, match="The bucket rejected the server's credentials") as failure:
                call()
            assert "Tried" not in failure.value.remedy  # it would be refused again
        wait_until(lambda: is_ready(server, but="storage"), "the server says that it is not ready")

        s3.valid_key, s3.fault = "key", lambda method, path: None

        wait_until(lambda: is_ready(server), "the server is ready again")
        assert client.query_arrow("SELECT count(*) AS n FROM kept")["n"].to_pylist() == [1]
        client.bulk_ingest("kept", ROWS, ingest_id="again")
        client.bulk_ingest("kept", ROWS, ingest_id="again")
        assert client.query_arrow("SELECT count(*) AS n FROM kept")["n"].to_pylist() == [2]
        assert "other" not in {table.name for table in client.table_summaries()}


def test_credentials_of_a_role_are_renewed_while_the_server_runs(s3, monkeypatch, tmp_path):
    with role_credentials("pod", monkeypatch, tmp_path) as given, server_on_bucket() as (server, client):
        client.bulk_ingest("kept", ROWS, mode="create")
        assert client.query_arrow("SELECT count(*) AS n FROM kept")["n"].to_pylist() == [1]

        given.key = s3.valid_key = "renewed"

        def works():
            try:
                client.bulk_ingest("kept", ROWS, ingest_id="later")
                return client.query_arrow("SELECT count(*) AS n FROM kept")["n"].to_pylist() == [2]
            except Unavailable:
                return False

        wait_until(works, "the renewed credentials are used")
        wait_until(lambda: is_ready(server), "the server is ready")
