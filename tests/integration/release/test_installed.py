"""The source distribution makes the same wheel, which works where nothing of the checkout is."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import micromegas_jupyter
from tests.architecture.guide_text import ROOT

pytestmark = pytest.mark.integration

FIXTURES = "import micromegas_jupyter.testing.plugin as fixtures; print(fixtures.__file__)"


def _build(builder, root, folder):
    return Path(next(builder(str(root)).build(directory=str(folder), versions=["standard"])))


def test_a_wheel_from_the_source_distribution_is_the_same_and_works_alone(tmp_path):
    wheel = _build(WheelBuilder, ROOT, tmp_path / "wheel")
    with tarfile.open(_build(SdistBuilder, ROOT, tmp_path / "sdist")) as sources:
        sources.extractall(tmp_path / "sources", filter="data")
    [unpacked] = (tmp_path / "sources").iterdir()
    assert _build(WheelBuilder, unpacked, tmp_path / "again").read_bytes() == wheel.read_bytes()

    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    own = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}

    def run(*command):
        return subprocess.run(
            [*map(str, command)], env=environ, cwd=elsewhere, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    (own / "others.pth").write_text(sysconfig.get_path("purelib"))  # what the project needs

    assert run(python, "-c", FIXTURES).startswith(str(own))
    assert run(python.with_name("micromegas"), "--version").split()[-1] == micromegas_jupyter.__version__
    assert "SQL001" in run(python.with_name("micromegas"), "explain", "SQL001")
