"""Facts about the repository: import cost, layout, what must not stand in it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = (
    "anywidget", "authlib", "datafusion", "flask", "grpc", "IPython", "ipywidgets", "joserfc", "jupyter_server",
    "numpy", "pandas", "pyarrow", "requests",
)  # fmt: skip


def _tracked_text_files():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    endings = {".py", ".md", ".toml", ".js", ".mjs", ".css", ".json", ".ipynb", ".proto", ""}
    return [ROOT / name for name in listed if name and Path(name).suffix in endings and (ROOT / name).is_file()]


def test_importing_the_package_loads_no_heavy_library():
    program = f"import sys, micromegas_jupyter; print([name for name in {HEAVY!r} if name in sys.modules])"

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_public_rooms_load_when_they_are_used_without_an_import_of_their_own():
    program = (
        "import micromegas_jupyter as package\n"
        "print(package.auth.OidcAuthProvider.__name__, package.access.Rejected is package.errors.Rejected)"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "OidcAuthProvider True"


def test_the_command_line_parser_loads_no_heavy_library():
    program = (
        "import sys; from micromegas_jupyter.cli.main import build_parser; build_parser(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_no_file_names_a_registry_host_or_a_path_of_one_machine():
    forbidden = re.compile(
        r"/(?:work|farm|root|home)/[a-z]|(?:files\.python" r"hosted|registry\.npm" r"js|deb\.deb" r"ian)\."
    )

    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked_text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if forbidden.search(line)
    ]

    assert found == []


def test_the_top_level_holds_nothing_but_what_the_layout_names():
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    tops = {name.split("/")[0] for name in listed if not name.startswith(".")}

    assert tops <= {"pyproject.toml", "README.md", "micromegas_jupyter", "notebooks", "tests", "binder", "docs"}


def test_readme_starts_with_the_two_commands():
    head = (ROOT / "README.md").read_text(encoding="utf-8")[:600]

    assert "pip install '.[demo]' && micromegas demo" in head
    assert "pip install '.[test]' && pytest" in head
