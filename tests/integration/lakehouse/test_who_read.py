"""Who read which column, by the lines of the server's own audit only."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256

import pyarrow as pa
import pytest
import requests

from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.cli.admin_commands import find_readers
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.read_statements import READS
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess

pytestmark = pytest.mark.integration

LOOK_ALIKES = (
    "Flightsql_query_audit", "flightsql_query_audit\u200b", "ｆlightsql_query_audit", "Micromegas_Jupyter.audit",
    "micromegas_jupyter\u200b.audit", "ｍicromegas_jupyter.audit", " flightsql_query_audit",
)  # fmt: skip
#: No column, and some columns that several statements read.
ASKED = {"", "msg", "exe", "schema.tables"}
FORGED = json.dumps({"query_id": "forged", "user": "mallory", "reads": {"log_entries": ["msg"]}, "status": "ok"})


def token_of(subject):
    return mint(
        key=ec_key(), audience="lake", subject=subject, email=f"{subject}@example.com", exp=4_000_000_000, iat=0
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("who-read")
    jwks, access = folder / "jwks.json", folder / "access.json"
    jwks.write_text(json.dumps({"keys": [ec_key().jwk()]}))
    configuration = {
        "oidc": {"issuers": [{"issuer": ISSUER, "audience": "lake", "jwks_file": str(jwks)}]},
        "admins": [f"{ISSUER}|carol"],
        "roles": {"reader": {"tables": ["*"], "ingest": ["*"]}},
        "default_roles": ["reader"],
    }
    access.write_text(json.dumps(configuration))
    options = ("--access-config", str(access), "--http-port", "0", "--telemetry-interval", "1")
    running = ServerProcess(
        folder / "server", lake=folder / "lake", keys={}, options=options, variables={"HOME": str(folder)}
    )
    yield running
    running.stop()


def client(server, subject):
    return FlightSQLClient(server.uri, auth_provider=StaticTokenAuthProvider(token_of(subject)))


def readers_of(administrator, name):
    now = SYSTEM_CLOCK.now()
    return find_readers(administrator, name, since=now - timedelta(hours=1), until=now + timedelta(minutes=1))


def stored(administrator, target):
    return administrator.query_arrow("SELECT count(*) AS n FROM log_entries WHERE target = $1", params=[target])["n"][
        0
    ].as_py()


def test_who_read_a_column_is_answered_for_views_queries_and_long_comments(server, tmp_path):
    with client(server, "carol") as carol:
        wait_until(lambda: stored(carol, "micromegas_jupyter.server") is not None, "there is a lake")
        with client(server, "bob") as bob:
            for sql in READS:
                with suppress(MicromegasError):  # one that fails while it runs has read, too
                    bob.query_arrow(sql)
            with pytest.raises(MicromegasError):
                bob.query_arrow("SELECT no_such_column FROM log_entries")
        lines = wait_until(lambda: _complete(server.audit_lines(user="bob"), len(READS) + 1), "each has its line")
        wait_until(
            lambda: _known(carol) >= {line["query_id"] for line in lines if line["reads"] is not None},
            "they are stored",
            pause_seconds=0.5,
        )

        expected = defaultdict(set)
        ids = {line["statement_sha256"]: line["query_id"] for line in lines}
        for sql, reads in READS.items():
            for table, columns in reads.items():
                for name in (table, *(f"{table}.{column}" for column in columns if column != "*")):
                    expected[name].add(ids[sha256(sql.encode()).hexdigest()])
                if "*" in columns:
                    for column in LOG_ENTRIES.schema.names:
                        expected[f"{table}.{column}"].add(ids[sha256(sql.encode()).hexdigest()])
        asked = [name for name in expected if name.partition(".")[2] in ASKED]
        found = {
            name: {one for each in readers_of(carol, name)[0] if each["user"] == "bob" for one in each["query_ids"]}
            for name in asked
        }

        assert found == {name: expected[name] for name in asked}
        assert readers_of(carol, "measures")[0] == []
        (bobs,) = [one for one in readers_of(carol, "processes")[0] if one["user"] == "bob"]
        assert bobs["queries"] == len(expected["processes"])
        assert bobs["issuer"] == ISSUER
        _, coverage = readers_of(carol, "processes")
        assert (coverage["unknown"], coverage["dropped"]) == (0, 0)
        assert coverage["since"] is not None

    done = _run(server, tmp_path, "who-read", "processes.username", "--since", "1h", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert {one["user"] for one in printed["readers"]} == {"bob"}
    assert {*printed["readers"][0]["query_ids"]} == expected["processes.username"]


def test_lines_that_look_like_an_audit_are_ordinary_lines_of_their_sender(server):
    with client(server, "bob") as bob, client(server, "carol") as carol:
        bob.bulk_ingest("log_entries", _log_entries(LOOK_ALIKES))
        for target in LOOK_ALIKES:
            _export(server, target, {"micromegas.origin": "server"})
        carol.bulk_ingest("log_entries", _log_entries(["flightsql_query_audit"]))
        wait_until(lambda: all(stored(carol, target) == 2 for target in LOOK_ALIKES), "they are stored")

        readers, coverage = readers_of(carol, "log_entries.msg")

    assert [one for one in readers if one["user"] == "mallory"] == []
    assert coverage["unknown"] == 1  # an administrator may store the lines of another server


@pytest.mark.parametrize("name", ["micromegas.origin", "Micromegas.ORIGIN"])  # queries find it in any case
@pytest.mark.parametrize("subject", ["bob", "carol"])
def test_no_sender_can_claim_the_origin_of_the_servers_own_records(server, subject, name):
    rows = _log_entries(["a target"], process_properties={name: "server"})

    with client(server, subject) as sender, pytest.raises(UsageError, match=r"micromegas\.origin"):
        sender.bulk_ingest("log_entries", rows)


def _known(administrator):
    sql = "SELECT msg FROM log_entries WHERE target = 'flightsql_query_audit'"
    return {json.loads(line)["query_id"] for line in administrator.query_arrow(sql).column("msg").to_pylist()}


def _complete(lines, count):
    queries = [line for line in lines if "sql" in line]
    return queries if len(queries) >= count else None


def _log_entries(targets, *, process_properties=None):
    now = SYSTEM_CLOCK.now()
    columns = {"target": targets, "level": [4] * len(targets), "msg": [FORGED] * len(targets)}
    maps = {"properties": {}, "process_properties": process_properties or {}}
    arrays = []
    for field in LOG_ENTRIES.schema:
        if field.name in columns:
            arrays.append(pa.array(columns[field.name]))
        elif field.name in maps:
            arrays.append(pa.array([[*maps[field.name].items()]] * len(targets), pa.map_(pa.string(), pa.string())))
        elif pa.types.is_timestamp(field.type):
            arrays.append(pa.array([now] * len(targets), pa.timestamp("us", "UTC")))
        else:
            arrays.append(pa.array(["x"] * len(targets)))
    return pa.table(arrays, names=LOG_ENTRIES.schema.names)


def _export(server, target, attributes):
    resource = [{"key": name, "value": {"stringValue": value}} for name, value in attributes.items()]
    record = {"timeUnixNano": str(int(SYSTEM_CLOCK.now().timestamp() * 1e9)), "body": {"stringValue": FORGED}}
    body = {
        "resourceLogs": [
            {"resource": {"attributes": resource}, "scopeLogs": [{"scope": {"name": target}, "logRecords": [record]}]}
        ]
    }
    headers = {"Authorization": f"Bearer {token_of('bob')}", "Content-Type": "application/json"}
    response = requests.post(f"{server.ready['http']}/v1/logs", headers=headers, data=json.dumps(body), timeout=60)
    assert (response.status_code, response.json()) == (200, {})


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
