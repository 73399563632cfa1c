"""`micromegas serve --engine` before pyarrow's own server over DataFusion, which knows no more than statements."""

from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError, MicromegasError, Unavailable
from micromegas_jupyter.wiring.engines import build_engine, warn_of_open_engine
from tests.fakes import scripted_engine
from tests.fakes.waiting import wait_until
from tests.integration.executors.server_process import ServerProcess
from tests.integration.gateway import bare_engine

pytestmark = pytest.mark.integration

_COUNT = "SELECT count(*) AS n, max(word) AS word FROM words WHERE n > :least"
_COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'words'"


def test_serve_runs_statements_at_the_engine_that_its_settings_name(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    pq.write_table(pa.table({"n": [1, 2, 3], "word": ["x", "y", None]}), tables / "words.parquet")
    variables = {"MICROMEGAS_ENGINE_DIALECT": "datafusion", "MICROMEGAS_SERVER_ENGINE_TIMEOUT_SECONDS": "60"}

    with ExitStack() as engine:
        variables["MICROMEGAS_ENGINE"] = engine.enter_context(bare_engine.running(tables))
        options = ("--disable-auth",)
        with ServerProcess(tmp_path / "s", lake=None, keys={}, variables=variables, options=options) as server:
            with FlightSQLClient(server.uri) as client:
                rows = client.query_arrow(_COUNT, params={"least": 1})
                listed = client.query_arrow(_COLUMNS)
                with pytest.raises(MicromegasError) as refused:
                    client.bulk_ingest("words", pa.table({"n": [1]}))
            ready = requests.get(f"{server.ready['http']}/ready", timeout=60)
            log = server.log()

            def is_lost():
                answer = requests.get(f"{server.ready['http']}/ready", timeout=60)
                return answer.status_code == 503 and answer.json()["reason"] == "engine"

            engine.close()
            wait_until(is_lost, "the server says that its engine is gone")

    assert rows.to_pylist() == [{"n": 2, "word": "y"}]
    assert listed["column_name"].to_pylist() == ["n", "word"]
    assert "read-only" in refused.value.what
    assert ready.status_code == 200
    assert "(datafusion) · no lake" in log


def test_tokens_and_certificates_of_the_engine_come_from_files_and_are_not_shown(tmp_path, caplog):
    token = tmp_path / "token"
    token.write_text("a secret\n")
    settings = ServerSettings(engine="grpc://10.255.255.1:32010", engine_token_file=token, engine_user="svc", lake="")

    engine = build_engine(settings)
    warn_of_open_engine(engine)

    assert engine.engine.settings.token == Secret("a secret")
    assert "a secret" not in repr(engine.engine.settings)
    assert [record.getMessage()[-10:] for record in caplog.records] == ["plain text"]
    assert build_engine(ServerSettings()) is None
    with scripted_engine.running() as other:
        assert build_engine(ServerSettings(engine=other.uri)).snapshot() == ()
    with pytest.raises(Unavailable):
        build_engine(ServerSettings(engine=other.uri)).snapshot()
    token.write_text("two\nlines")
    for wrong in (
        settings,
        ServerSettings(engine="grpc://h:1", engine_user="svc"),
        ServerSettings(engine="grpc://h:1", engine_ca=token),
        ServerSettings(engine="grpc+tls://h:1", engine_ca=tmp_path / "none"),
    ):
        with pytest.raises(ConfigurationError):
            build_engine(wrong)
