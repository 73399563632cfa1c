"""What docs/testing.md shows runs as it stands, in a pytest of its own."""

import os
import subprocess
import sys

import pytest

from tests.architecture.guide_text import ROOT, blocks

pytestmark = pytest.mark.integration


def test_the_examples_pass_in_a_project_of_somebody_else(tmp_path):
    examples = [block.text for block in blocks("testing.md") if block.language == "python"]
    for text in examples:
        (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        timeout=250,
    )  # fmt: skip

    assert "4 passed" in run.stdout, run.stdout + run.stderr
