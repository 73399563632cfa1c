"""A hook of MkDocs: the notebooks that pages link to are part of the site."""
# ruff: noqa: INP001 - a program of its own, not a package

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let links to the repository's folder lead to the site's."""
    return markdown.replace("](../notebooks/", "](notebooks/")
