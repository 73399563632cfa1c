"""What is in the wheel that people install: all that the program reads, and nothing that belongs to the tests."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import micromegas_jupyter
from tests.architecture.guide_text import ROOT

ALLOWED = re.compile(
    r"micromegas_jupyter/(?:[\w/]+\.py|py\.typed|flightsql/proto/\w+\.(?:proto|binpb)"
    r"|notebook/(?:frontend/)?static/(?:\w+\.(?:js|css)|vega\.js\.gz|vega\.licenses\.txt)"
    r"|demo/provider/(?:static/[\w.]+\.(?:css|svg)|templates/[\w.]+\.html)|demo/notebooks/[\w-]+\.ipynb"
    r"|mcp/documents/(?:data-model|errors|sql)\.md)"
    r"|micromegas_jupyter-[\d.]+\.data/data/etc/jupyter/jupyter_server_config\.d/micromegas_jupyter\.json"
    r"|micromegas_jupyter-[\d.]+\.data/data/share/jupyter/labextensions/micromegas-jupyter/[\w/.-]+\.(?:js|json)"
    r"|micromegas_jupyter-[\d.]+\.dist-info/(?:METADATA|WHEEL|RECORD|entry_points\.txt|licenses/docs/LICENSE)"
)
LAB_EXTENSION = (
    f"micromegas_jupyter-{micromegas_jupyter.__version__}.data/data/share/jupyter/labextensions/micromegas-jupyter"
)
NOTEBOOK = ROOT / "micromegas_jupyter" / "notebook"
WIDGETS = sorted(path.stem for path in NOTEBOOK.glob("frontend/src/*/*.ts") if path.stem == path.parent.name)
MAX_BYTES = 1_700_000
_EXPLAIN = """
from micromegas_jupyter import errors
from micromegas_jupyter.cli.main import run
from micromegas_jupyter.notebook.shell import error_lines
print(errors.__file__)
run(["explain", "SQL001"])
run(["explain", "?"])
print(error_lines(errors.InvalidStatement("No.", query_id="7f"))[-1])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    path = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def names(wheel):
    return wheel.namelist()


def test_the_wheel_is_small_and_holds_only_what_is_allowed(wheel, names):
    assert [name for name in names if not ALLOWED.fullmatch(name)] == []
    assert sum(each.compress_size for each in wheel.infolist()) < MAX_BYTES


def test_the_wheel_holds_no_file_twice(wheel, names):
    contents = Counter(hashlib.sha256(wheel.read(name)).hexdigest() for name in names)

    assert max(contents.values()) == 1
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "name",
    [
        "micromegas_jupyter/py.typed", "micromegas_jupyter/flightsql/proto/wire.binpb",
        "micromegas_jupyter/demo/notebooks/quickstart.ipynb",
        "micromegas_jupyter/demo/notebooks/investigating-an-incident.ipynb",
        "micromegas_jupyter/demo/notebooks/jupyterhub.ipynb",
        "micromegas_jupyter/demo/notebooks/service-account.ipynb",
        "micromegas_jupyter-0.1.0.data/data/etc/jupyter/jupyter_server_config.d/micromegas_jupyter.json",
        f"{LAB_EXTENSION}/install.json",
        *(f"micromegas_jupyter/notebook/frontend/static/{name}.{kind}" for name in WIDGETS for kind in ("js", "css")),
    ],
)  # fmt: skip
def test_the_wheel_holds_what_the_program_reads(names, name):
    assert name in names


def test_an_installed_wheel_explains_errors_and_says_where_its_documentation_is(wheel, tmp_path):
    wheel.extractall(tmp_path)
    (described,) = tmp_path.glob("*.dist-info/METADATA")
    described.write_text(f"Project-URL: Documentation, https://docs.example.com/en/\n{described.read_text()}")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"}

    ran = subprocess.run(
        [sys.executable, "-P", "-c", _EXPLAIN], capture_output=True, text=True, check=True, env=environ
    )

    first, *explained, last = ran.stdout.splitlines()
    assert first.startswith(str(tmp_path))
    assert "Cause: The SQL contains a syntax error, or an invalid name, type, or value." in " ".join(explained)
    assert ran.stderr.endswith(" · USE001 · https://docs.example.com/en/errors/#use001\n")
    assert last == "  query 7f · SQL001 · more: %micromegas_explain SQL001 · https://docs.example.com/en/errors/#sql001"


def test_the_lab_extension_has_the_package_s_version_and_its_entry_point(wheel, names):
    package = json.loads(wheel.read(f"{LAB_EXTENSION}/package.json"))

    assert package["version"] == micromegas_jupyter.__version__
    assert f"{LAB_EXTENSION}/{package['jupyterlab']['_build']['load']}" in names


def test_the_source_distribution_holds_the_front_end_s_sources_without_what_npm_installs(tmp_path):
    path = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path)))
    with tarfile.open(path) as sources:
        names = [name.partition("/notebook/frontend/")[2] for name in sources.getnames()]

    assert {"package-lock.json", "src/grid/grid.ts", "labextension/src/index.ts"} <= set(names)
    assert [name for name in names if "node_modules/" in name or name.startswith("labextension/lib/")] == []
