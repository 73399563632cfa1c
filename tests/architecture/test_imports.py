"""Every module can be imported with the versions that are installed, without a warning."""

from importlib import import_module

from tests.architecture.guide_text import ROOT


def test_each_module_can_be_imported():
    paths = (path.relative_to(ROOT) for path in (ROOT / "micromegas_jupyter").rglob("*.py"))
    names = [".".join(path.with_suffix("").parts) for path in paths if "node_modules" not in path.parts]
    # JupyterHub is in an extra of its own, and what runs as a program is imported by it.
    wanted = [name for name in names if not name.startswith("micromegas_jupyter.hub") and not name.endswith("__main__")]

    for name in wanted:
        import_module(name)
    assert len(wanted) > 100
