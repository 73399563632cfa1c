"""Two servers over one lake: a user whom an administrator cuts off at one of them has no access at either."""

import json
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
import requests
from filelock import FileLock

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.functions.denial_store import CutOff, DenialStore
from micromegas_jupyter.errors import MicromegasError, PermissionDenied, Rejected, UsageError
from micromegas_jupyter.otlp.exchange import Signal
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

BOBS_KEY, SERVICE_KEY = "the-key-that-bob-owns-and-uses", "the-key-of-a-dashboard-service"
BUSY = (
    "SELECT count(*) AS n FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b WHERE a.value <> b.value"
)
LONG = "SELECT value, repeat('x', 1000) AS text FROM generate_series(1, 100000000)"
FIVE_SECONDS = 5.0


def token_of(subject):
    return mint(
        key=ec_key(), audience="lake", subject=subject, email=f"{subject}@example.com", exp=4_000_000_000, iat=0
    )


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut-off")
    jwks, access = folder / "jwks.json", folder / "access.json"
    jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
    configuration = {
        "oidc": {"issuers": [{"issuer": ISSUER, "audience": "lake", "jwks_file": str(jwks)}]},
        "admins": [f"{ISSUER}|carol"],
        "api_keys": [
            {"name": "bobs", "key": BOBS_KEY, "owner": f"{ISSUER}|bob", "scopes": ["read", "ingest"]},
            {"name": "service", "key": SERVICE_KEY},
        ],
        "roles": {"writer": {"tables": ["*"], "ingest": ["*"]}},
        "default_roles": ["writer"],
    }
    access.write_text(json.dumps(configuration))
    with ExitStack() as stack:
        options = ("--access-config", str(access), "--http-port", "0", "--telemetry-interval", "1")
        made = [
            ServerProcess(
                folder / f"server {n}", lake=folder / "lake", keys={}, options=options, variables={"HOME": str(folder)}
            )
            for n in range(2)
        ]
        for server in made:
            stack.callback(server.stop)
        yield made


def client(server, credential):
    return FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(credential))


def is_rejected(server, credential):
    with client(server, credential) as caller:
        return is_rejected_for(caller)


def is_rejected_for(caller):
    try:
        caller.query("SELECT 1")
    except Rejected:
        return True
    except PermissionDenied:
        return False  # the call was open when the user was cut off: the next one is rejected
    return False


@pytest.fixture
def carol(servers):
    with client(servers[0], token_of("carol")) as administrator:
        yield administrator
        for user in administrator.cut_off_users():
            administrator.restore_access(user.issuer, user.subject)
        for server in servers:
            wait_until(lambda server=server: not is_rejected(server, token_of("bob")), "access is restored")


def open_calls(server):
    """Return how many calls a server answers now, exports included."""
    headers = {"Authorization": f"Bearer {token_of('carol')}"}
    shown = requests.get(f"{server.ready['http']}/metrics", headers=headers, timeout=60).text
    return float(re.search(r"^micromegas_server_calls_open (\S+)$", shown, re.MULTILINE)[1])


def end_of(call):
    """Return the error with which a call ends, and when."""
    try:
        call()
    except (MicromegasError, grpc.RpcError) as error:
        return error, SYSTEM_CLOCK.monotonic()
    raise AssertionError("the call was not ended")


@pytest.mark.filterwarnings("ignore:headers is deprecated:DeprecationWarning")
def test_a_cut_off_ends_a_query_a_stream_and_an_export_at_both_replicas(servers, carol):
    hold = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        bobs = [stack.enter_context(client(server, token_of("bob"))) for server in servers]
        readers = [stack.enter_context(bob.open_query(LONG)) for bob in bobs]
        streams = [iter(reader) for reader in readers]
        for stream in streams:
            next(stream)

        def read_slowly(stream):
            for _ in stream:
                hold.wait(0.05)

        def export(server):
            with grpc.insecure_channel(server.address) as channel:
                method = channel.stream_stream(Signal.LOGS.method)

                def nothing():
                    hold.wait(60)
                    yield b""

                return list(method(nothing(), metadata=(("authorization", f"Bearer {BOBS_KEY}"),), timeout=60))

        calls = {
            f"{kind} {n}": threads.submit(end_of, call)
            for n, (server, bob, stream) in enumerate(zip(servers, bobs, streams, strict=True))
            for kind, call in (
                ("query", lambda bob=bob: bob.query(BUSY)),
                ("stream", lambda stream=stream: read_slowly(stream)),
                ("export", lambda server=server: export(server)),
            )
        }
        for server in servers:
            with client(server, token_of("carol")) as other:
                wait_until(lambda other=other: len(other.running_queries()) == 2, "both queries run")
            # An export that has not begun is rejected instead of ended.
            wait_until(lambda server=server: open_calls(server) >= 3, "the export is open")

        began_at = SYSTEM_CLOCK.monotonic()
        reports = carol.cut_off(ISSUER, "bob", email="bob@example.com")
        ended = {name: call.result(60) for name, call in calls.items()}
        hold.set()
        check_new_calls(servers)

    assert {name: at - began_at for name, (_, at) in ended.items() if at - began_at > FIVE_SECONDS} == {}
    for name, (error, _) in ended.items():
        code = error.code().name if isinstance(error, grpc.RpcError) else error.grpc_code
        assert code == "PERMISSION_DENIED", name
    assert len(reports) == 2
    assert [report.ended >= 3 for report in reports] == [True, True]
    for server in servers:
        lines = wait_until(lambda server=server: server.audit_lines(ended_for="cut_off"), "it is in the audit")
        assert {line["ended_by"] for line in lines} == {"carol"}
        assert {line["query_id"] for line in lines} <= {one for report in reports for one in report.query_ids}
    (line,) = wait_until(lambda: servers[0].audit_lines(action="cut_off", operation="add"), "it is in the audit")
    assert (line["user"], line["target_subject"]) == ("carol", "bob")


def check_new_calls(servers):
    """Check that new calls of Bob are rejected, whichever credential they have and whoever makes them for him."""
    for server in servers:
        assert is_rejected(server, token_of("bob"))
        assert is_rejected(server, BOBS_KEY)
        assert not is_rejected(server, token_of("alice"))
        headers = {"Authorization": f"Bearer {BOBS_KEY}", "Content-Type": "application/json"}
        assert (
            requests.post(f"{server.ready['http']}/v1/logs", headers=headers, data="{}", timeout=60).status_code == 401
        )
        for name, value in (("x-user-id", "bob"), ("x-user-email", "bob@example.com"), ("x-user-id", "alice")):
            with FlightSQLClient(server.uri, {"authorization": f"Bearer {SERVICE_KEY}", name: value}) as service:
                assert is_rejected_for(service) == (value != "alice")


def test_only_administrators_end_access_and_not_their_own(servers, carol):
    with client(servers[1], token_of("bob")) as bob, pytest.raises(PermissionDenied):
        bob.cut_off(ISSUER, "carol")
    with pytest.raises(UsageError, match="your own access"):
        carol.cut_off(ISSUER, "carol")

    assert carol.cut_off_users() == ()


def test_a_replica_that_cannot_read_the_file_asks_for_no_calls(servers, carol):
    def reason(server):
        return requests.get(f"{server.ready['http']}/ready", timeout=60).json().get("reason")

    file = servers[0].audit_file.parent.parent / "lake" / "_micromegas" / "query_denials.json"
    dave = CutOff(issuer=ISSUER, subject="dave", created_at=SYSTEM_CLOCK.now(), created_by="a test")
    DenialStore(file).change_cut_off(lambda found: [*found, dave])
    for server in servers:
        wait_until(lambda server=server: is_rejected(server, token_of("dave")), "dave is cut off")
    assert [reason(server) for server in servers] == [None, None]
    # Servers report that they apply the cut-off: without their lock, one could replace what is written here.
    with FileLock(file.with_name(f".{file.name}.lock")):
        content = file.read_text()
        file.write_text("{")
    try:
        for server in servers:
            wait_until(lambda server=server: reason(server) == "denials", "it says why")
        assert is_rejected(servers[1], token_of("dave"))
    finally:
        file.write_text(content)
    for server in servers:
        wait_until(lambda server=server: reason(server) is None, "it is ready again")


def test_the_command_cuts_off_a_user_whom_the_audit_knows_by_address(servers, carol, tmp_path):
    with client(servers[1], token_of("erin")) as erin:
        erin.query("SELECT 'erin was here'")
    wait_until(lambda: _is_recorded(carol, "erin was here"), "the line is stored", pause_seconds=0.5)

    done = _run(servers[0], tmp_path, "cut-off", "erin@example.com", "--until", "1h", "--json")

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    assert f"{ISSUER}|erin has no access until" in done.stderr
    assert is_rejected(servers[1], token_of("erin"))
    assert "erin@example.com" in _run(servers[0], tmp_path, "cut-off").stdout
    assert _run(servers[0], tmp_path, "cut-off", "erin@example.com", "--undo").returncode == 0


def _is_recorded(administrator, text):
    sql = "SELECT count(*) AS n FROM log_entries WHERE target = 'flightsql_query_audit' AND msg LIKE '%' || $1 || '%'"
    return administrator.query_arrow(sql, params=[text]).column("n")[0].as_py() > 0


def _run(server, folder, *words):
    (folder / "key").write_text(token_of("carol"))
    (folder / "key").chmod(0o600)
    profile = {"uri": server.uri, "api_key_file": str(folder / "key")}
    (folder / "config.json").write_text(json.dumps({"profiles": {"carol": profile}}))
    (folder / "config.json").chmod(0o600)
    environ = {**os.environ, "MICROMEGAS_CONFIG_DIR": str(folder), "MICROMEGAS_PROFILE": "carol"}
    return subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", "admin", *words],
        env=environ, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
