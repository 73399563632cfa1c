"""`%micromegas_doctor` in a kernel: the same checks as the command, with the notebook's own settings."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.notebook.kernels import run_unattended

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("nobody_answers")]

LOAD = "%load_ext micromegas_jupyter"


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings of a person who is not signed in, at a provider and a server that are down."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
        monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", f"grpc://{address}")
        monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", f"http://{address}")
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "notebook")
        yield


def _printed(run) -> str:
    return "".join(output["text"] for cell in run.notebook.cells for output in cell.outputs if "text" in output)


def test_it_says_what_is_wrong_line_by_line():
    run = run_unattended(LOAD, "%micromegas_doctor")

    lines = _printed(run)
    assert run.stopped_by is None
    assert "✓ sign-in: a notebook that runs by itself: nobody can sign in here" in lines
    assert "✗ issuer: The identity provider 127.0.0.1:" in lines
    assert "could not be reached: the connection was refused." in lines
    assert "✗ token: " in lines
    assert "✗ server: " in lines
    assert "Traceback" not in lines


def test_it_speaks_json():
    run = run_unattended(LOAD, "%micromegas_doctor --json")

    document = json.loads(_printed(run))
    assert document["ok"] is False
    assert [check["check"] for check in document["checks"]][-1] == "server"


def test_an_option_that_is_not_known_is_one_line():
    run = run_unattended(LOAD, "%micromegas_doctor --jsn")

    assert "Unrecognized arguments: --jsn. Did you mean --json?" in run.saved
