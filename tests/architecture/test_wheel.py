"""What is in the wheel that people install: all that the program reads, and nothing that belongs to the tests."""

import json
import re
import zipfile

import pytest
from hatchling.builders.wheel import WheelBuilder

import micromegas_jupyter
from tests.architecture.guide_text import ROOT

ALLOWED = re.compile(
    r"micromegas_jupyter/(?:[\w/]+\.py|py\.typed|flightsql/proto/\w+\.(?:proto|binpb)|notebook/static/\w+\.(?:js|css)"
    r"|notebook/frontend/static/\w+\.(?:js|css)|doctor/errors\.md"
    r"|notebook/labextension/(?:(?:package|install)\.json|static/\w+\.js)"
    r"|demo/provider/(?:static/[\w.]+\.(?:css|svg)|templates/[\w.]+\.html)|demo/notebooks/[\w-]+\.ipynb"
    r"|server_extension/server_extension\.json)"
    r"|micromegas_jupyter-[\d.]+\.data/data/etc/jupyter/jupyter_server_config\.d/micromegas_jupyter\.json"
    r"|micromegas_jupyter-[\d.]+\.data/data/share/jupyter/labextensions/micromegas-jupyter/[\w/.]+"
    r"|micromegas_jupyter-[\d.]+\.dist-info/(?:METADATA|WHEEL|RECORD|entry_points\.txt|licenses/docs/LICENSE)"
)
LAB_EXTENSION = (
    f"micromegas_jupyter-{micromegas_jupyter.__version__}.data/data/share/jupyter/labextensions/micromegas-jupyter"
)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    path = next(WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"]))
    with zipfile.ZipFile(path) as wheel:
        return wheel.namelist()


def test_the_wheel_holds_only_what_is_allowed(names):
    assert [name for name in names if not ALLOWED.fullmatch(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "micromegas_jupyter/py.typed", "micromegas_jupyter/flightsql/proto/wire.binpb",
        "micromegas_jupyter/notebook/frontend/static/card.js", "micromegas_jupyter/notebook/frontend/static/card.css",
        "micromegas_jupyter/doctor/errors.md", "micromegas_jupyter/demo/notebooks/quickstart.ipynb",
        "micromegas_jupyter/demo/notebooks/investigating-an-incident.ipynb",
        "micromegas_jupyter/demo/notebooks/jupyterhub.ipynb",
        "micromegas_jupyter/demo/notebooks/service-account.ipynb",
        "micromegas_jupyter-0.1.0.data/data/etc/jupyter/jupyter_server_config.d/micromegas_jupyter.json",
        *(f"{LAB_EXTENSION}/{name}" for name in ("package.json", "install.json", "static/remoteEntry.js")),
    ],
)  # fmt: skip
def test_the_wheel_holds_what_the_program_reads(names, name):
    assert name in names


def test_the_lab_extension_has_the_package_s_version():
    path = ROOT / "micromegas_jupyter" / "notebook" / "labextension" / "package.json"

    assert json.loads(path.read_text(encoding="utf-8"))["version"] == micromegas_jupyter.__version__
