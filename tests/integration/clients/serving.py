"""A server with authentication on, over real telemetry and plain Parquet, for clients of other make."""

import json
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet

from micromegas_jupyter.access import validator_from_environment
from micromegas_jupyter.access.api_keys import make_api_key
from micromegas_jupyter.config.access import render_api_keys
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.served_folder import ServedFolder
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.http.json_page import Site
from micromegas_jupyter.telemetry.tables import StreamInfo, build_stream_batch
from tests.fakes.mint import ISSUER, ec_key, mint
from tests.fakes.servers import build_pool, open_server
from tests.fakes.telemetry_rows import NOON_NS, log_batch, measure_rows, process_state
from tests.integration.clients.wide_rows import wide_table

PROCESS_ID = "11111111-1111-4111-8111-111111111111"
STREAM_ID = "22222222-2222-4222-8222-222222222222"
LOG_COUNT = 1000
MANY_COUNT = 300_000
_FAR_FUTURE = 4_000_000_000
_KEYS = {"reader": {"read"}, "collector": {"ingest"}, "loader": {"read", "ingest"}}
TABLE_NAMES = [
    "blocks", "counter_increases", "empty", "histogram_increases", "histograms", "log_entries", "log_stats",
    "many", "measures", "otel_spans", "processes", "streams",
    "underXscore", "under_score", "wide",
]  # fmt: skip


class ClientServer:
    """Where the server listens, and who may come in.

    `tokens`: `reader`, `collector` (may only ingest) and `loader` (both) are API keys, `alice` (administrator) and
    `bob` are people with a signed token.
    """

    host = "127.0.0.1"

    def __init__(self, port, tokens, *, is_encrypted=False):
        self.port, self.tokens = port, tokens
        self.uri = f"grpc{'+tls' if is_encrypted else ''}://{self.host}:{port}"

    def bearer(self, who="bob"):
        return f"Bearer {self.tokens[who]}"


@contextmanager
def running_client_server(folder, *, provider=None, tls_files=None):
    """Run a server whose lake has logs, measures, a process and a stream, beside plain Parquet tables.

    It also accepts the access tokens of `provider`, the demo's.
    """
    lake, plain = Storage(folder / "lake"), folder / "plain"
    write_telemetry(lake)
    _write_plain(plain)
    environ, tokens = make_access(folder)
    if provider is not None:
        oidc = json.loads(environ["MICROMEGAS_OIDC_CONFIG"])
        oidc["issuers"].append({"issuer": provider.issuer, "audience": provider.lake_audience})
        environ["MICROMEGAS_OIDC_CONFIG"] = json.dumps(oidc)
    validator = validator_from_environment(environ)
    sources = (Lake(lake), ServedFolder(Storage(plain)))
    tables = SimpleNamespace(snapshot=lambda sql=None: [table for source in sources for table in source.snapshot(sql)])
    pool = build_pool(tables, worker={"lake": str(folder / "lake"), "denials_file": str(folder / "denials.json")})
    with closing(validator), open_server(pool, validator=validator, tls_files=tls_files) as server:
        sql = Site(calls=server.http_calls)
        http = HttpEndpoint("127.0.0.1", 0, validator=validator, registries=(), readiness=lambda: None, sql=sql)
        found = ClientServer(server.port, tokens, is_encrypted=tls_files is not None)
        found.url = f"http://127.0.0.1:{http.start()}"
        try:
            yield found
        finally:
            http.stop()


def make_access(folder):
    """Return the environment that says who may come in, and their tokens."""
    made = {"randomness": SYSTEM_RANDOMNESS, "now": SYSTEM_CLOCK.now()}
    keys = {name: make_api_key(name, **made, scopes=frozenset(scopes)) for name, scopes in _KEYS.items()}
    tokens = {name: key.secret.reveal() for name, key in keys.items()}
    tokens |= {name: mint(key=ec_key(), subject=name, iat=0, exp=_FAR_FUTURE) for name in ("alice", "bob")}
    (folder / "jwks.json").write_text(json.dumps({"keys": [ec_key().jwk()]}))
    issuer = {"issuer": ISSUER, "audience": "lake", "jwks_file": str(folder / "jwks.json")}
    environ = {
        "MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": [issuer]}),
        "MICROMEGAS_ADMINS": json.dumps([f"{ISSUER}|alice"]),
        "MICROMEGAS_API_KEYS": render_api_keys([key.setting for key in keys.values()]),
    }
    return environ, tokens


def write_telemetry(storage):
    stream = StreamInfo(
        stream_id=STREAM_ID, process_id=PROCESS_ID, tags=("log",), format="otlp/v1/logs", insert_time_ns=NOON_NS
    )
    of_process = {"process_id": PROCESS_ID, "stream_id": STREAM_ID, "target": "app", "name": "load", "unit": "percent"}
    measures = measure_rows([{**of_process, "time": NOON_NS + n * 10**9, "value": float(n)} for n in range(60)])
    writer = LakeWriter(storage)
    writer.append("log_entries", log_batch(range(LOG_COUNT), writer="app"))
    writer.append("measures", measures)
    writer.append("processes", process_state(PROCESS_ID, updated=60 * 10**9))
    writer.append("streams", build_stream_batch(stream, last_update_time_ns=NOON_NS))
    writer.close()


def _write_plain(folder):
    folder.mkdir()
    wide = wide_table()
    tables = {
        "wide": wide,
        "empty": wide.schema.empty_table(),
        "many": pa.table({"n": range(MANY_COUNT), "text": [f"row {n}" for n in range(MANY_COUNT)]}),
        "under_score": pa.table({"a": [1]}),
        "underXscore": pa.table({"b": ["x"]}),
    }
    for name, table in tables.items():
        pa.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=100_000)


def audit_lines(caplog, sql):
    """Return the lines about a statement that no other test runs."""
    lines = [json.loads(record.message) for record in caplog.records if record.name == "micromegas_jupyter.audit"]
    return [line for line in lines if line["sql"] == sql]
