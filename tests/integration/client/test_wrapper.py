"""A corporate wrapper's own client, behind the face of this package's client."""

import sys
import textwrap
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.client.flight_client import WrappedClient, wrapped_client
from micromegas_jupyter.errors import ConfigurationError, InternalError, UnsupportedRequest, UsageError
from tests.fakes.flight_server import SMALL_TABLE

pytestmark = pytest.mark.integration

MODULE = "acme_telemetry_wrapper"


@pytest.fixture
def wrapper(tmp_path, monkeypatch):
    """Write a wrapper module and return the environment that names it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        sys.modules.pop(MODULE, None)
        (tmp_path / f"{MODULE}.py").write_text(textwrap.dedent(source))
        return {"MICROMEGAS_PYTHON_MODULE_WRAPPER": MODULE}

    yield write
    sys.modules.pop(MODULE, None)


def _made(environ):
    with pytest.warns(FutureWarning, match="MICROMEGAS_PYTHON_MODULE_WRAPPER is deprecated"):
        made = wrapped_client(environ)
    assert isinstance(made, WrappedClient)
    return made


def test_upstreams_own_client_runs_statements(wrapper, fake_server):
    environ = wrapper(
        f"""
        from micromegas.flightsql.client import FlightSQLClient
        def connect():
            return FlightSQLClient({fake_server.uri!r})
        """
    )
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    with _made(environ) as client:
        frame = client.query("SELECT 1", begin, begin)
        with client.open_query("SELECT 1") as reader:
            table = reader.read_all()
        batches = list(client.query_stream("SELECT 1"))

    assert frame["n"].tolist() == [1, 2, 3]
    assert table == SMALL_TABLE
    assert sum(batch.num_rows for batch in batches) == 3
    assert fake_server.calls[0].metadata["query_range_begin"] == "2026-01-01T00:00:00+00:00"


def test_a_client_that_only_gives_frames_is_enough(wrapper):
    environ = wrapper(
        """
        import pandas as pd
        class Client:
            region = "north"
            def query(self, sql, begin=None, end=None):
                return pd.DataFrame({"n": range(5)})
        def connect():
            return Client()
        """
    )

    client = _made(environ)
    with client.open_query("SELECT 1", limit=3) as reader:
        few = reader.read_all()

    assert client.query("SELECT 1")["n"].tolist() == [0, 1, 2, 3, 4]
    assert few.num_rows == 3
    assert client.region == "north"
    client.close()


def test_what_another_client_cannot_do_is_said(wrapper):
    client = _made(wrapper("class C:\n    def query(self, *a): raise KeyError('sesame')\ndef connect(): return C()"))

    with pytest.raises(UnsupportedRequest):
        client.whoami()
    with pytest.raises(UnsupportedRequest):
        client.list_tables()
    with pytest.raises(UsageError):
        client.query("SELECT :a", params={"a": 1})
    with pytest.raises(InternalError, match=r"failed \(KeyError\)") as caught:
        client.query("SELECT 1")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("", "doesn't have a connect"),
        ("def connect():\n    raise OSError('sesame')", r"connect\(\) failed \(OSError\)"),
        ("raise RuntimeError('sesame')", r"cannot be imported \(RuntimeError\)"),
        ("def connect(): return None", "isn't a client"),
    ],
)
def test_a_wrapper_that_cannot_be_used_is_a_configuration_error(wrapper, source, what):
    environ = wrapper(source)

    with pytest.raises(ConfigurationError, match=what) as caught:
        wrapped_client(environ)
    assert caught.value.key == "MICROMEGAS_PYTHON_MODULE_WRAPPER"
    assert "sesame" not in str(caught.value)
