"""What MkDocs does besides: the notebooks that pages link to are files of the site."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the notebooks, at the addresses by which pages in docs/ link to them."""
    for notebook in sorted(Path(config.docs_dir).parent.glob("notebooks/*.ipynb")):
        address = f"../notebooks/{notebook.name}"
        file = File.generated(config, address, abs_src_path=str(notebook), inclusion=InclusionLevel.INCLUDED)
        file.dest_uri = f"notebooks/{notebook.name}"
        files.append(file)
