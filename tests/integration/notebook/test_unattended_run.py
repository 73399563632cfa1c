"""A notebook that runs without a person: what stops it, and what is saved in it."""

import json
import re
import socket

import pytest

from micromegas_jupyter.auth.flows.base import UNATTENDED_REMEDY
from tests.fakes.notebook_world import SECRET_TOKEN, START_URL
from tests.integration.notebook.kernels import LOAD, REPOSITORY, run_unattended

pytestmark = pytest.mark.integration

SIGNED_OUT = "world.stored = None"


def check_nothing_technical_or_secret(run):
    outputs = "\n".join(str(output) for cell in run.notebook.cells for output in cell.get("outputs", ()))
    assert "Traceback" not in outputs
    assert str(REPOSITORY) not in outputs
    assert not re.search(r"site-packages|File |\.py\b", outputs)
    assert SECRET_TOKEN not in run.saved
    assert START_URL not in run.saved


def test_a_sign_in_that_needs_a_person_fails_at_once_with_the_remedy():
    run = run_unattended(LOAD, SIGNED_OUT, "%micromegas_login", "print('not reached')")

    (output,) = run.outputs(2)
    assert (output.output_type, output.ename) == ("error", "LoginRequired")
    assert output.traceback[0] == (
        "✗ Not signed in at id.example.com (for lake.example.com:50051), and no user is present to sign in. "
        f"{UNATTENDED_REMEDY} · AUTH001"
    )
    assert run.stopped_by is not None
    assert run.notebook.cells[3].execution_count is None
    check_nothing_technical_or_secret(run)


def test_a_whole_notebook_runs_and_is_saved_without_secrets_or_live_parts():
    run = run_unattended(
        LOAD,
        "%micromegas_login",
        "max_level = 3",
        "%%sql rows << --begin 1h\nSELECT n, msg FROM t WHERE level <= :max_level",
        "len(rows)",
        "%%sql\nSELECT n, msg FROM t",
        "%micromegas_whoami",
        "%micromegas_logout",
    )

    assert run.stopped_by is None
    assert run.outputs(1)[0].text.startswith(
        "Signed in as Alice Martin (alice@example.com)\nid.example.com · expires at 15:42 UTC, renews by itself"
    )
    line, preview = run.outputs(3)
    assert line.data["text/plain"].endswith("· query 7f3a91c2 → rows (DataFrame)")
    assert "&lt;b&gt;" in preview.data["text/html"]
    assert run.outputs(4)[0].data["text/plain"] == "3"
    assert run.outputs(5)[1].output_type == "execute_result"
    assert "lake.example.com:50051: connected as alice@example.com, 14 ms" in run.outputs(6)[0].text
    assert "widget-view" not in run.saved
    check_nothing_technical_or_secret(run)


def test_doctor_says_what_is_wrong_in_lines_or_in_json(monkeypatch, tmp_path):
    doctor = "%micromegas_doctor"
    with socket.socket() as bound:  # a provider and a server that are down
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
        monkeypatch.setenv("MICROMEGAS_ANALYTICS_URI", f"grpc://{address}")
        monkeypatch.setenv("MICROMEGAS_OIDC_ISSUER", f"http://{address}")
        monkeypatch.setenv("MICROMEGAS_OIDC_CLIENT_ID", "notebook")
        run = run_unattended("%load_ext micromegas_jupyter", doctor, f"{doctor} --json", f"{doctor} --jsn")

    lines, document = ("".join(output.text for output in run.outputs(cell)) for cell in (1, 2))
    assert "✓ sign-in: an unattended notebook: nobody can sign in here" in lines
    assert "✗ issuer: The identity provider 127.0.0.1:" in lines
    assert "could not be reached: the connection was refused." in lines
    assert "✗ token: " in lines
    assert "✗ server: " in lines
    assert [json.loads(document)["ok"], json.loads(document)["checks"][-1]["check"]] == [False, "server"]
    assert "--jsn is not an option. Did you mean --json?" in str(run.outputs(3))
