"""Each notebook runs from top to bottom against a demo; what must hold of its answers is said by its own cells."""

import json
import os
import re
from datetime import UTC, datetime, timedelta

import nbformat
import pytest
from nbclient import NotebookClient

from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.wiring.client_side import load_client_settings
from micromegas_jupyter.wiring.sign_in import login
from tests.notebooks.conftest import NOTEBOOKS

pytestmark = [pytest.mark.integration, pytest.mark.notebook, pytest.mark.timeout(600)]

BEARER_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.")


def _as_alice(stack):
    """Sign Alice in as the demo's own check does, over the provider's pages, and return her variables."""
    environ = stack.process_environment()
    with ScriptedPerson(person="alice") as browser:
        login(load_client_settings(environ=environ), browser=browser, environ=environ)
    return stack.client_environment()


ENVIRONMENTS = {"quickstart": _as_alice, "service-account": lambda stack: stack.job_environment()}
# Their first two cells sign in. Of the others, those that need an earlier one say so; the last one says what was found.
IN_ANY_ORDER = {
    "instrument-your-own-script": "read_rates is slow: 20 calls",
    "investigating-an-incident": "100% were about nightly-report: invalid_client",
}


def test_every_notebook_is_run_here():
    on_a_hub = {"jupyterhub"}  # tests.integration.hub.test_notebook_page

    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(ENVIRONMENTS) | set(IN_ANY_ORDER) | on_a_hub


# The tests of the browser and the Binder run the quickstart, too, and that of a job the service account's notebook.
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_cell_of_a_notebook_works(name, stack, run_with_nbval):
    path = NOTEBOOKS / f"{name}.ipynb"
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]

    run = run_with_nbval(path, ENVIRONMENTS[name](stack))

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(cells)} passed" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("name", "found"), IN_ANY_ORDER.items(), ids=IN_ANY_ORDER)
def test_a_notebook_stands_any_order_of_its_cells_and_runs_twice(name, found, stack, tmp_path):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cells = [(index, cell) for index, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    for _, cell in cells:
        cell.metadata.tags = ["raises-exception"]
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    variables = {**os.environ, **stack.service_environment(), **stack.exporter_environment()}

    def errors(order):
        for index, cell in order:
            client.execute_cell(cell, index)
        return {cell.id: shown for _, cell in order if (shown := _error(cell))}

    with client.setup_kernel(env=variables):
        backwards = errors([*cells[:2], *reversed(cells[2:])])
        once, twice = errors(cells), errors(cells)

    assert "sentences" in backwards
    assert all(" above" in shown for shown in backwards.values()), backwards
    assert once == twice == {}
    assert found in cells[-1][1].outputs[0].text


def _error(cell):
    """What a cell's output says about why it failed, without its traceback; empty when it did not."""
    texts = ["".join(one.get("traceback", ())) or one.get("text", "") for one in cell.outputs]
    return next((text for text in texts if "✗" in text or "Error" in text), "")


@pytest.mark.slow
def test_a_job_runs_with_other_parameters_and_its_report_holds_no_secret(stack, tmp_path, run_with_nbconvert):
    variables = stack.job_environment()
    notebook = nbformat.read(NOTEBOOKS / "service-account.ipynb", as_version=4)
    (position,) = [n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    # What papermill does for `-p hours 24`.
    notebook.cells.insert(position + 1, nbformat.v4.new_code_cell("hours = 24"))
    nbformat.write(notebook, tmp_path / "job.ipynb")

    run = run_with_nbconvert(tmp_path / "job.ipynb", variables)

    assert run.returncode == 0, run.stderr
    saved = (tmp_path / "report.ipynb").read_text(encoding="utf-8")
    found = re.search(r"Since (\d{4}-\d\d-\d\d \d\d:\d\d) UTC: [1-9]", saved)
    assert found is not None
    assert datetime.now(UTC) - datetime.fromisoformat(f"{found[1]}+00:00") >= timedelta(hours=23, minutes=59)
    assert "Signed in as service account micromegas-demo-service" in saved
    assert not BEARER_TOKEN.search(saved)
    assert stack.provider.service_secret.reveal() not in saved
    assert str(stack.folder) not in saved


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
class TestSaved:
    """What stands in the repository, and so in the wheel."""

    def test_there_are_no_outputs(self, path):
        cells = nbformat.read(path, as_version=4).cells

        assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")

    def test_it_is_valid_and_names_the_usual_kernel(self, path):
        notebook = nbformat.read(path, as_version=4)

        nbformat.validate(notebook)
        assert notebook.metadata.kernelspec.name == "python3"
        assert set(notebook.metadata) == {"kernelspec", "language_info"}

    def test_every_link_leads_to_another_notebook(self, path):
        targets = re.findall(r"\]\(([^)]+)\)", json.dumps(nbformat.read(path, as_version=4)))

        assert all((NOTEBOOKS / target).is_file() for target in targets)
