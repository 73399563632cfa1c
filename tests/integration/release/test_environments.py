"""A server and a client, each with its own packages only: what `pip install .` and docs/deploy install."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from hatchling.builders.wheel import WheelBuilder

import micromegas_jupyter
from micromegas_jupyter.demo.provider import DemoProvider
from tests.architecture.guide_text import DOCS, ROOT
from tests.fakes.terminal import make_browser
from tests.integration.executors.server_process import ServerProcess

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REQUIREMENTS = DOCS / "deploy" / "server-requirements.txt"
MAX_CLIENT_MIB = 540
MAX_SERVER_PACKAGES = 36
FOR_SERVERS = {"datafusion", "deltalake", "grpcio", "obstore", "opentelemetry-api", "sqlglot", "uvloop"}
FOR_NOTEBOOKS = {"ipython", "ipywidgets", "jupyter-core", "jupyter-server", "pandas", "traitlets"}
KEY = "a-key-for-this-test-only"
BATCH = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeLogs": [
                {
                    "scope": {"name": "orders"},
                    "logRecords": [
                        {"timeUnixNano": str(time.time_ns()), "severityNumber": number, "body": {"stringValue": text}}
                        for number, text in ((9, "sold"), (17, "failed"))
                    ],
                }
            ],
        }
    ]
}
COUNT = "SELECT count(*) AS n, min(msg) AS msg FROM log_entries WHERE target = 'orders'"
CELLS = f"""
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.history_manager.enabled = False
shell.run_line_magic("load_ext", "micromegas_jupyter")
shell.run_cell_magic("sql", "rows <<", "{COUNT}")
assert shell.user_ns["rows"].to_dict("records") == [{{"n": 1, "msg": "failed"}}]
result = shell.run_cell_magic("sql", "", "{COUNT}")
from micromegas_jupyter.notebook.results.grid import ResultGrid, RowsView
grid = ResultGrid(RowsView(result.to_arrow()), result_rows=1)
assert "failed" in str(grid.first), grid.first
shell.run_cell("%micromegas_serve .")
"""


def uv(*arguments):
    """Run uv, which links the packages that CI has installed already."""
    program = shutil.which("uv")
    if program is None:
        pytest.skip("uv is not installed; run: pip install uv")
    subprocess.run([program, "-q", *arguments], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"]))


@pytest.fixture(scope="module")
def client_python(tmp_path_factory, wheel):
    """The interpreter of an environment with the client alone."""
    folder = tmp_path_factory.mktemp("client")
    uv("venv", "--python", sys.executable, str(folder))
    uv("pip", "install", "--python", f"{folder}/bin/python", wheel)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def server_python(tmp_path_factory, wheel):
    """The interpreter of an environment as docs/deploy makes it."""
    folder = tmp_path_factory.mktemp("server")
    uv("venv", "--python", sys.executable, str(folder))
    # Compiled, as the guides say: executors that compile modules all at once start slowly.
    install = ("pip", "install", "--compile-bytecode", "--python", f"{folder}/bin/python")
    uv(*install, "--require-hashes", "-r", str(REQUIREMENTS))
    uv(*install, "--no-deps", wheel)
    return folder / "bin" / "python"


def packages(python):
    listed = "import importlib.metadata as m; print(*(one.metadata['Name'].lower() for one in m.distributions()))"
    names = run(python, "-c", listed).stdout.split()
    return {name.replace("_", "-") for name in names}


def run(python, *arguments, environ=None, folder=None):
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [python, *arguments], env=kept | (environ or {}), cwd=folder, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip


def size_mib(folder):
    seen = {(found.stat().st_dev, found.stat().st_ino): found.stat().st_blocks for found in folder.rglob("*")}
    return sum(seen.values()) * 512 / 2**20


def test_the_client_is_small_and_says_how_to_get_the_rest(client_python, tmp_path):
    found = packages(client_python)
    told = {
        command: run(client_python, "-m", "micromegas_jupyter.cli", *command.split(), folder=tmp_path)
        for command in ("serve --disable-auth", "demo --check", "lake status .")
    }

    assert {"micromegas-jupyter", "ipython", "pandas", "pyarrow"} <= found
    assert not found & FOR_SERVERS
    assert size_mib(client_python.parents[1]) <= MAX_CLIENT_MIB
    for result in told.values():
        assert result.returncode == 2
        assert "pip install 'micromegas_jupyter[server]'" in result.stderr
        assert "Traceback" not in result.stderr


def test_tokens_are_validated_with_the_clients_packages(client_python, tmp_path):
    program = f"""
import sys
from micromegas_jupyter.access import Rejected, validator_from_environment
validator = validator_from_environment({{"MICROMEGAS_API_KEYS": '[{{"name": "ci", "key": "{KEY}"}}]'}})
assert validator.validate_token("{KEY}").subject == "ci"
try:
    validator.validate_token("another")
except Rejected:
    print("prometheus_client" in sys.modules)
"""
    result = run(client_python, "-W", "ignore", "-c", program, folder=tmp_path)

    assert result.stdout == "False\n", result.stderr


def test_the_wheel_comes_with_a_bill_of_the_servers_pinned_packages(tmp_path):
    if shutil.which("cyclonedx-py") is None:
        pytest.skip("cyclonedx-bom is not installed; run: pip install cyclonedx-bom")
    subprocess.run(["bash", str(ROOT / ".ci" / "build"), str(tmp_path)], check=True, timeout=300)

    built = {path.name for path in tmp_path.iterdir()}
    bill = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    pinned = set(re.findall(r"^([\w.-]+)==([^\s;]+)", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE))
    components = {(one["name"].lower().replace("_", "-"), one["version"]): one["purl"] for one in bill["components"]}
    product = bill["metadata"]["component"]
    assert built == {f"micromegas_jupyter-{micromegas_jupyter.__version__}-py3-none-any.whl", "sbom.json"}
    assert (bill["bomFormat"], product["name"]) == ("CycloneDX", "micromegas_jupyter")
    assert product["version"] == micromegas_jupyter.__version__
    assert {"datafusion", "deltalake", "grpcio", "pyarrow", "sqlglot"} <= {name for name, _version in components}
    assert set(components) <= pinned
    assert components == {(name, version): f"pkg:pypi/{name}@{version}" for name, version in components}
    assert str(tmp_path) not in json.dumps(bill)


def test_the_server_needs_neither_jupyter_nor_pandas(server_python):
    found = packages(server_python)

    assert len(found) <= MAX_SERVER_PACKAGES, sorted(found)
    assert not found & FOR_NOTEBOOKS


@contextmanager
def running(python, folder, provider, **more):
    """Run a server that shows errors alone to everybody, and to Alice, too."""
    access = {"roles": {"errors": {"tables": {"log_entries": "level <= 2"}}}, "default_roles": ["errors"]}
    folder.mkdir()
    (folder / "access.json").write_text(json.dumps(access))
    issuers = [{"issuer": provider.issuer, "audience": provider.client_id}]
    variables = {
        "MICROMEGAS_OIDC_CONFIG": json.dumps({"issuers": issuers}),
        "MICROMEGAS_ACCESS_CONFIG": str(folder / "access.json"),
    }
    with ServerProcess(folder, keys={"agent": KEY}, variables=variables, python=python, **more) as server:
        yield server


def test_a_client_signs_in_and_queries_what_servers_in_another_environment_received_or_forward(
    client_python, server_python, tmp_path
):
    def micromegas(*arguments, uri):
        variables = {**environ, "MICROMEGAS_ANALYTICS_URI": uri}
        return run(client_python, "-m", "micromegas_jupyter.cli", *arguments, environ=variables, folder=tmp_path)

    tables = tmp_path / "tables"
    tables.mkdir()
    rows = {"target": ["orders"] * 2, "level": pa.array([2, 4], pa.int32()), "msg": ["failed", "sold"]}
    pq.write_table(pa.table(rows), tables / "log_entries.parquet")
    with ExitStack() as started:
        provider = started.enter_context(DemoProvider())
        own = started.enter_context(running(server_python, tmp_path / "own", provider, lake=tmp_path / "lake"))
        engine = started.enter_context(ServerProcess(tmp_path / "e", lake=tables, keys={}, python=server_python))
        options = ("--engine", engine.uri, "--engine-dialect", "datafusion")
        front = started.enter_context(running(server_python, tmp_path / "front", provider, lake=None, options=options))
        environ = {
            "MICROMEGAS_OIDC_ISSUER": provider.issuer,
            "MICROMEGAS_OIDC_CLIENT_ID": provider.client_id,
            "MICROMEGAS_CONFIG_DIR": str(tmp_path / "config"),
            "BROWSER": make_browser(tmp_path / "browser"),
        }
        headers = {"Authorization": f"Bearer {KEY}"}
        sent = requests.post(f"{own.ready['http']}/v1/logs", json=BATCH, headers=headers, timeout=60)
        signed_in = micromegas("login", "--flow", "browser", uri=own.uri)
        queried = [micromegas("query", COUNT, "--format", "csv", uri=server.uri) for server in (own, front)]
        variables = {**environ, "MICROMEGAS_ANALYTICS_URI": own.uri}
        cells = run(client_python, "-W", "ignore", "-c", CELLS, environ=variables, folder=tmp_path)

    assert sent.status_code == 200, sent.text
    assert signed_in.stdout.startswith("Signed in as Alice Martin"), signed_in.stderr
    for result in queried:
        assert result.stdout.split() == ["n,msg", "1,failed"], result.stderr
    assert cells.returncode == 0, cells.stderr
    assert "pip install 'micromegas_jupyter[server]'" in cells.stdout + cells.stderr
