"""Which redirect URIs and secrets the demo's applications have, and how Jupyter is started beside the demo."""

import json
import os
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.demo import lab as lab_module
from micromegas_jupyter.demo.folder import JOB_KERNEL, JOB_NOTEBOOK, in_job_kernel
from micromegas_jupyter.demo.lab import LabProcess, find_base_url
from micromegas_jupyter.demo.provider import DemoProvider
from micromegas_jupyter.demo.stack import wait_for_rows
from micromegas_jupyter.errors import ServerUnavailable, Unavailable
from tests.fakes.ports import free_port


def _build(jupyter_base_url=None):
    provider = DemoProvider(jupyter_base_url=jupyter_base_url)
    return provider.clients[provider.client_id], provider.clients[provider.service_client_id]


PERSON, SERVICE = _build()
A_HUB = DemoProvider().clients[DemoProvider.hub_client_id]
BEHIND, _ = _build("/user/a.b/")
HOST, BELOW = "https://hub.example.org", "/user/a.b/micromegas/callback"


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:1/callback", "http://127.0.0.1/callback", "http://localhost:65535/callback",
     "http://[::1]:8000/callback"],
)  # fmt: skip
def test_the_callback_on_this_machine_is_accepted_for_a_person(uri):
    assert PERSON.is_redirect_uri(uri)
    assert not SERVICE.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:1/callback", "http://127.0.0.1:1/callback/", "http://127.0.0.1:1/callback?a=b",
        "http://127.0.0.1:1/callback#f", "http://127.0.0.1:1/../callback", "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:1@evil.example/callback", "http://evil.example/callback", "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback", "http://127.0.0.1:123456/callback", "http://127.0.0.1:١/callback",
        "http://127.1/callback", "http://0.0.0.0:1/callback", "http://LOCALHOST:1/callback",
        "\nhttp://127.0.0.1:1/callback", "http://127.0.0.1:1/callback\n", "",
        *(f"{host}{path}" for host, path in (
            (HOST, "/user/b/micromegas/callback"), (HOST, "/user/aXb/micromegas/callback"), (HOST, f"{BELOW}?x=1"),
            (HOST, f"{BELOW}/"), (HOST, f"/other{BELOW}"), ("https://person@hub.example.org", BELOW),
            (HOST, f"{BELOW}\n"), ("javascript://hub.example.org", BELOW), ("//hub.example.org", BELOW))),
    ],
)  # fmt: skip
def test_everything_else_is_not(uri):
    assert not PERSON.is_redirect_uri(uri)
    assert not BEHIND.is_redirect_uri(uri)


def test_a_hub_of_this_machine_has_its_own_callback_below_any_base_url():
    for base in ("http://127.0.0.1:8000", "http://localhost/jupyter/x"):
        assert A_HUB.is_redirect_uri(f"{base}/hub/oauth_callback")
        assert not PERSON.is_redirect_uri(f"{base}/hub/oauth_callback")
    for other in ("https://hub.example.org/hub/oauth_callback", "http://127.0.0.1:1/callback", "http://127.0.0.1/hub"):
        assert not A_HUB.is_redirect_uri(other)


@pytest.mark.parametrize("host", [HOST, "http://127.0.0.1:8888", "http://[::1]:8888"])
def test_the_callback_of_the_jupyter_server_in_front_is_one_at_any_host(host):
    assert BEHIND.is_redirect_uri(f"{host}{BELOW}")


HUB = {"JUPYTERHUB_SERVICE_PREFIX": "/user/alice/"}


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ("", {}, "/"), ("", HUB, "/user/alice/"), ("--ServerApp.base_url=/x/", {}, "/x/"),
        ("--ServerApp.base_url=/x/", HUB, "/x/"), ("--NotebookApp.base_url=x/y", {}, "/x/y/"),
        ("--ServerApp.base_url /x", {}, "/x/"), ("--ServerApp.base_url=/x/ --ServerApp.base_url=/y/", {}, "/y/"),
        ("--ServerApp.base_url=/", HUB, "/"), ("--ServerApp.base_url", {}, "/"),
        ("--ServerApp.base_url=/x/;Path=/", {}, "/"),
        ("", {"JUPYTERHUB_SERVICE_PREFIX": "/user/a%40b.example/named/"}, "/user/a%40b.example/named/"),
    ],
)  # fmt: skip
def test_the_base_url_is_what_jupyter_takes(arguments, environ, expected):
    assert find_base_url(["jupyter", "lab", *arguments.split()], environ) == expected


def test_only_the_kernel_of_the_notebook_changes(tmp_path):
    path = Path(shutil.copy(Path(__file__).parents[3] / "notebooks" / JOB_NOTEBOOK, tmp_path))
    before = json.loads(path.read_text(encoding="utf-8"))

    path.write_bytes(in_job_kernel(path.read_bytes()))

    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    assert after.metadata.pop("kernelspec").name == JOB_KERNEL
    assert before["metadata"].pop("kernelspec")["name"] == "python3"
    assert json.loads(nbformat.writes(after)) == before


def test_rows_that_do_not_come_in_time_are_a_timeout_and_no_wrong_address():
    client = FlightSQLClient(f"grpc://127.0.0.1:{free_port()}", timeout_seconds=0.1)
    with client, pytest.raises(Unavailable) as caught:
        wait_for_rows(client, timeout_seconds=0)

    assert str(caught.value).startswith("The demo didn't record any rows within 0 s. This machine may be too busy")
    assert "address" not in str(caught.value)


@pytest.mark.slow
def test_a_jupyterlab_whose_port_is_taken_starts_on_another_one(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(lab_module, "_PORT", port)
        monkeypatch.setattr(lab_module, "_PORT_RETRIES", 0)
        lab = LabProcess(
            tmp_path, os.environ, notebooks=tmp_path, settings=tmp_path, job_environment={}, open_browser=False
        )
        try:
            url = urlsplit(lab.wait_until_ready(timeout_seconds=120))
        finally:
            lab.stop()

    assert url.hostname == "127.0.0.1"
    assert url.port not in (None, port)
    assert "Fatal Python error" not in (tmp_path / "jupyterlab.log").read_text()


def test_a_jupyterlab_that_is_slow_is_not_reported_as_one_that_exited(tmp_path):
    lab = LabProcess(
        tmp_path, os.environ, notebooks=tmp_path, settings=tmp_path, job_environment={}, open_browser=False
    )
    try:
        with pytest.raises(ServerUnavailable, match=r"did not respond within 0 s\. This machine may be too busy"):
            lab.wait_until_ready(timeout_seconds=0)
    finally:
        lab.stop()
    with pytest.raises(ServerUnavailable, match=r"JupyterLab exited\. Run `jupyter lab` to see why"):
        lab.wait_until_ready(timeout_seconds=0)
