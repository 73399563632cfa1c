"""What the demo's JupyterLab offers beside the quickstart."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import nbformat
import pytest
import requests

if TYPE_CHECKING:
    from tests.integration.browser.conftest import RunningDemo

# The first test of the folder starts the demo.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_the_notebook_of_a_job_has_a_kernel_with_the_variables_of_the_service_account(demo: RunningDemo) -> None:
    address = urlsplit(demo.lab_url)
    kernels = requests.get(
        f"http://{address.netloc}/api/kernelspecs",
        headers={"Authorization": f"token {parse_qs(address.query)['token'][0]}"},
        timeout=60,
    ).json()["kernelspecs"]

    notebook = nbformat.read(demo.notebooks / "service-account.ipynb", as_version=4)

    variables = kernels[notebook.metadata.kernelspec.name]["spec"]["env"]
    assert variables["MICROMEGAS_ANALYTICS_URI"] == demo.uri
    assert variables["MICROMEGAS_OIDC_CLIENT_ID"] != demo.environ["MICROMEGAS_OIDC_CLIENT_ID"]
    assert "MICROMEGAS_OIDC_CLIENT_SECRET" not in variables
    assert "python3" in kernels


def test_all_notebooks_lie_beside_the_quickstart(demo: RunningDemo) -> None:
    names = {path.name for path in demo.notebooks.glob("*.ipynb")}

    assert {"quickstart.ipynb", "investigating-an-incident.ipynb", "service-account.ipynb"} <= names
