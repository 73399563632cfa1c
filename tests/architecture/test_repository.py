"""RuntimeInfo about the repository: import cost, layout, what must not stand in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.guide_text import ROOT, read_page

HEAVY = (
    "anywidget", "authlib", "datafusion", "flask", "grpc", "IPython", "ipywidgets", "joserfc", "jupyter_server",
    "numpy", "pandas", "pyarrow", "requests",
)  # fmt: skip


def _printed(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    return done.stdout.strip()


def _files():
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def _text_files():
    endings = {".py", ".md", ".toml", ".js", ".mjs", ".ts", ".css", ".json", ".ipynb", ".proto", ""}
    return [ROOT / name for name in _files() if Path(name).suffix in endings and (ROOT / name).is_file()]


@pytest.mark.parametrize("used", ["", "; from micromegas_jupyter.cli.main import build_parser; build_parser()"])
def test_importing_the_package_loads_no_heavy_library(used):
    assert _printed(f"import sys, micromegas_jupyter{used}; print([n for n in {HEAVY!r} if n in sys.modules])") == "[]"


def test_public_packages_load_when_they_are_used_without_an_import_of_their_own():
    program = (
        "import micromegas_jupyter as package\n"
        "print(package.auth.OidcAuthProvider.__name__, package.access.Rejected is package.errors.Rejected)"
    )

    assert _printed(program) == "OidcAuthProvider True"


def test_no_file_names_a_registry_host_or_a_path_of_one_machine():
    forbidden = re.compile(
        r"/(?:work|farm|root|home)/[a-z]|(?:files\.python" r"hosted|registry\.npm" r"js|deb\.deb" r"ian)\."
    )

    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]

    assert found == []


def test_the_top_level_holds_nothing_but_what_the_layout_names():
    tops = {name.split("/")[0] for name in _files() if not name.startswith(".")}

    assert tops <= {"pyproject.toml", "README.md", "micromegas_jupyter", "notebooks", "tests", "binder", "docs"}


def test_readme_starts_with_the_two_commands():
    head = read_page("../README.md")[:600]

    assert "pip install '.[demo]' && micromegas demo" in head
    assert "pip install '.[test]' && pytest" in head
