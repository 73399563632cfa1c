"""The notebook for a Hub runs in a person's server, by itself and as that person."""

import json
import os
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.notebook, pytest.mark.slow, pytest.mark.timeout(600)]

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "jupyterhub.ipynb"
BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")
RUN_BY_ITSELF = """
import nbclient, nbformat
notebook = nbformat.read("page.ipynb", as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, "ran.ipynb")
print("done", end="")
"""


def test_it_runs_by_itself_as_the_person_whose_server_it_is(signed_in):
    person = signed_in.people["bob"]
    page = person.home / "page.ipynb"
    page.write_bytes(NOTEBOOK.read_bytes())
    os.chown(page, *signed_in.system.ids(person.name))

    with signed_in.kernel("bob") as kernel:
        ran = kernel.run(RUN_BY_ITSELF)

    assert ran.printed.endswith("done"), ran
    saved = (person.home / "ran.ipynb").read_text(encoding="utf-8")
    outputs = [output for cell in json.loads(saved)["cells"] for output in cell.get("outputs", ())]
    assert any("Signed in through JupyterHub" in str(output) for output in outputs)
    assert any("bob" in str(output) for output in outputs)
    assert not BEARER_TOKEN.search(saved)
    assert signed_in.server_token("bob") not in saved
