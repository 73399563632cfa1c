"""Two servers over one lake in a bucket, behind a balancer that sends each call to the next of them."""

import itertools
import threading
import uuid
from collections import Counter
from contextlib import ExitStack, contextmanager

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest
from adbc_driver_flightsql import DatabaseOptions
from micromegas.auth import StaticTokenAuthProvider as UpstreamTokenProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.errors import QueryDenied, ServerUnavailable, UsageError
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess
from tests.integration.lakehouse.faulty_s3 import BUCKET, moto_server
from tests.integration.replicas.balancer import Balancer

pytestmark = pytest.mark.integration

KEY = "the-key-of-all-callers"
ROWS = pa.table({"id": [1, 2, 3]})
VALUES = "SELECT n FROM (VALUES (1), (2), (3)) AS t(n) WHERE n > {} ORDER BY n"


class Replicas:
    """Servers that share a bucket and the key of tickets; `uri` is the balancer's."""

    def __init__(self, stack, folder, environ):
        # Its servers stop after the balancer, which would connect to them again.
        self._stack, self._folder, self.environ = stack.enter_context(ExitStack()), folder, environ
        self.lake, self._numbers = f"s3://{BUCKET}/{uuid.uuid4().hex}", itertools.count()
        (folder / "ticket-keys").touch(mode=0o600)
        (folder / "ticket-keys").write_text("k" * 40)
        self.servers = [self._start(), self._start()]
        self.balancer = Balancer([server.address for server in self.servers])
        stack.callback(self.balancer.close)
        self.uri = self.balancer.uri

    def _start(self, port=0):
        server = ServerProcess(
            self._folder / f"server {next(self._numbers)}",
            lake=self.lake,
            keys={"robot": KEY},
            options=(
                "--no-http", "--no-telemetry", "--port", str(port),
                "--ticket-key-file", str(self._folder / "ticket-keys"),
            ),
            variables=self.environ,
        )  # fmt: skip
        self._stack.callback(server.stop)
        return server

    def restart(self, position):
        """Stop a server as an administrator does, and start it again at its address."""
        old = self.servers[position]
        old.front.terminate()
        assert old.wait() == 0
        new = self.servers[position] = self._start(old.address.rpartition(":")[2])
        assert new.address == old.address
        self.balancer.await_connection(new.address)

    def client(self, uri=None):
        return FlightSQLClient(uri or self.uri, auth_provider=StaticTokenAuthProvider(KEY))

    def upstream(self):
        return UpstreamClient(self.uri, auth_provider=UpstreamTokenProvider(KEY))

    def adbc(self):
        settings = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {KEY}"}
        return adbc_driver_flightsql.dbapi.connect(self.uri, db_kwargs=settings, autocommit=True)


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    with ExitStack() as stack:
        environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{stack.enter_context(moto_server())}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        made = Replicas(stack, tmp_path_factory.mktemp("replicas"), environ)
        with made.client() as client:
            for table in ("ours", "upstreams", "adbcs", "retried"):
                client.bulk_ingest(table, ROWS, mode="create")
        yield made


def _fetched(cursor, sql, values=None):
    cursor.execute(sql, values)
    return [row[0] for row in cursor.fetchall()]


def _prepared_by_adbc(cursor):
    cursor.adbc_prepare(VALUES.format("?"))
    return [_fetched(cursor, VALUES.format("?"), [1]), _fetched(cursor, VALUES.format("?"), [2])]


def _prepared_upstream(client):
    statement = client.prepare_statement(VALUES.format(1))
    (batch,) = client.prepared_statement_stream(statement)
    return batch.column(0).to_pylist()


#: By client: what it calls again and again, with what comes back. The last one sends rows.
OURS = {
    "query": (lambda client: client.query(VALUES.format(1)).n.tolist(), [2, 3]),
    "parameters": (lambda client: client.query(VALUES.format(":low"), params={"low": 2}).n.tolist(), [3]),
    "prepare": (lambda client: client.prepare_statement(VALUES.format("?")).dataset_schema.names, ["n"]),
    "tables": (lambda client: "ours" in client.list_tables(), True),
    "identity": (lambda client: client.whoami().subject, "robot"),
    "ingest": (lambda client: client.bulk_ingest("ours", ROWS).record_count, 3),
}
UPSTREAMS = {
    "query": (lambda client: client.query(VALUES.format(1)).n.tolist(), [2, 3]),
    "stream": (lambda client: sum(batch.num_rows for batch in client.query_stream(VALUES.format(0))), 3),
    "prepared": (_prepared_upstream, [2, 3]),
    "ingest": (lambda client: client.bulk_ingest("upstreams", ROWS).record_count, 3),
}
ADBCS = {
    "execute": (lambda cursor: _fetched(cursor, VALUES.format(1)), [2, 3]),
    "parameters": (lambda cursor: _fetched(cursor, VALUES.format("?"), [2]), [3]),
    "prepared": (_prepared_by_adbc, [[2, 3], [3]]),
    "metadata": (lambda cursor: "adbcs" in str(cursor.connection.adbc_get_objects().read_all().to_pylist()), True),
    "schema": (lambda cursor: cursor.connection.adbc_get_table_schema("adbcs").names, ["id"]),
    "ingest": (lambda cursor: cursor.adbc_ingest("adbcs", ROWS, mode="append"), 3),
}


@contextmanager
def opened(replicas, name):
    """Connect a client, and yield what makes a call with it."""
    with ExitStack() as stack:
        if name == "adbc":
            connection = stack.enter_context(replicas.adbc())
            yield lambda call: _with_cursor(connection, call)
        else:
            client = replicas.upstream() if name == "upstream" else stack.enter_context(replicas.client())
            yield lambda call: call(client)


def _with_cursor(connection, call):
    with connection.cursor() as cursor:  # one that has failed is of no further use
        return call(cursor)


def _run_all(targets):
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def test_no_call_of_any_client_fails_when_each_goes_to_another_replica(replicas, pytestconfig):
    rounds = 70 if pytestconfig.getoption("--long") else 3
    wrong, made = [], Counter()

    def call_on(name, calls):
        with opened(replicas, name) as make:
            for _, (kind, (call, expected)) in itertools.product(range(rounds), calls.items()):
                try:
                    found = make(call)
                except Exception as error:  # noqa: BLE001 - whatever it is, the call has failed
                    found = error
                made[name] += 1
                if found != expected:
                    wrong.append(f"{name} {kind}: {found!r}")

    kinds = {"ours": OURS, "upstream": UPSTREAMS, "adbc": ADBCS}
    for thread in _run_all([lambda item=item: call_on(*item) for item in kinds.items()]):
        thread.join()

    print(made.total(), "calls, as", dict(replicas.balancer.calls))
    assert wrong == []
    assert min(replicas.balancer.calls.values()) > made.total() / 2
    for server in replicas.servers:
        with replicas.client(server.uri) as client:
            for table in ("ours", "upstreams", "adbcs"):
                assert client.query(f"SELECT count(*) AS n FROM {table}").n.tolist() == [3 * (rounds + 1)]


def test_a_replica_that_lacks_the_values_of_a_statement_says_so(replicas):
    values = {"text": "x" * 100_000}  # too many to travel with the statement's handle

    with replicas.client(replicas.servers[0].uri) as at_one, replicas.client() as at_both:
        assert at_one.query("SELECT length(:text) AS n", params=values).n.tolist() == [100_000]
        with pytest.raises(UsageError, match="64 KiB"):
            at_both.query("SELECT length(:text) AS n", params=values)


def test_a_denial_holds_at_each_replica(replicas, monkeypatch):
    for name, value in replicas.environ.items():
        monkeypatch.setenv(name, value)

    def is_denied_by(server):
        with replicas.client(server.uri) as client:
            try:
                client.query("SELECT 'noisy'")
            except QueryDenied:
                return True
            return False

    before = [is_denied_by(server) for server in replicas.servers]
    DenialStore(f"{replicas.lake}/_micromegas/query_denials.json").add(
        "sql LIKE '%noisy%'", "noise", created_by="carol"
    )

    assert before == [False, False]
    for server in replicas.servers:
        wait_until(lambda server=server: is_denied_by(server), "it is denied", seconds=60)


def _write_until_stored(client, ingest_id):
    """Send rows as a program does that wants them stored once: again, under the same id, while nobody answers."""
    while True:
        try:
            return client.bulk_ingest("retried", ROWS, ingest_id=ingest_id).record_count
        except ServerUnavailable:
            continue


def _may_be_repeated(error):
    if isinstance(error, adbc_driver_manager.Error):
        return "Unavailable" in str(error)
    return isinstance(error, (ServerUnavailable, pyarrow.flight.FlightUnavailableError))


# ADBC's cursors cannot be closed once the server has not answered when a statement was closed.
@pytest.mark.filterwarnings("ignore:Failed to close cursor:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function Cursor.__del__:pytest.PytestUnraisableExceptionWarning"
)
def test_a_rolling_restart_fails_no_read_of_ours_and_is_unavailable_to_others(replicas, pytestconfig):
    is_long = pytestconfig.getoption("--long")
    names = ["ours", "writer", "upstream", "adbc"]
    if is_long:
        names += ["ours"] * 6 + ["upstream"] * 3 + ["adbc"] * 3
    wrong, made, refused = [], Counter(), Counter()
    changed, stop = threading.Condition(), threading.Event()
    reads = {kind: call for kind, call in OURS.items() if kind != "ingest"}
    write = {"write": (lambda client: _write_until_stored(client, str(uuid.uuid4())), 3)}
    calls_of = {"ours": reads, "writer": write, "upstream": UPSTREAMS, "adbc": ADBCS}

    def call_on(name):
        with opened(replicas, name) as make:
            for kind, (call, expected) in itertools.cycle(calls_of[name].items()):
                if stop.is_set():
                    return
                try:
                    found = make(call)
                except Exception as error:  # noqa: BLE001 - whatever it is, the call has failed
                    found = error
                is_refused = name in {"upstream", "adbc"} and _may_be_repeated(found)
                with changed:
                    made[name] += 1
                    refused[name] += is_refused
                    if found != expected and not is_refused:
                        wrong.append(f"{name} {kind}: {found!r}")
                    changed.notify_all()

    def await_calls():
        """Wait until each kind of client has made some more calls."""
        with changed:
            goals = {name: made[name] + (40 if is_long else 4) for name in names}
            assert changed.wait_for(lambda: all(made[name] >= goals[name] for name in names), timeout=120), made

    threads = _run_all([lambda name=name: call_on(name) for name in names])
    try:
        for position in [0, 1] * 3 if is_long else [0]:
            await_calls()
            replicas.restart(position)
        await_calls()
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)

    print(dict(made), "calls, of which were refused", dict(refused))
    assert wrong == []
    with replicas.client() as client:
        assert client.query("SELECT count(*) AS n FROM retried").n.tolist() == [3 * (made["writer"] + 1)]
