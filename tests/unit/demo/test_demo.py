"""Which redirect URIs and secrets the demo's applications have, and how Jupyter is started beside the demo."""

import json

import nbformat
import pytest

from micromegas_jupyter.demo.lab import JOB_KERNEL, JOB_NOTEBOOK, copy_notebooks, find_base_url, run_in_job_kernel
from micromegas_jupyter.demo.provider import DemoProvider


def _build(jupyter_base_url=None):
    provider = DemoProvider(jupyter_base_url=jupyter_base_url)
    return provider.clients[provider.client_id], provider.clients[provider.service_client_id]


PERSON, SERVICE = _build()
BEHIND, _ = _build("/user/a.b/")


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1/callback",
        "http://localhost:65535/callback",
        "http://[::1]:8000/callback",
    ],
)
def test_the_callback_on_this_machine_is_accepted(uri):
    assert PERSON.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:1/callback", "http://127.0.0.1:1/callback/", "http://127.0.0.1:1/callback?a=b",
        "http://127.0.0.1:1/callback#f", "http://127.0.0.1:1/../callback", "http://127.0.0.1.evil.example/callback",
        "http://127.0.0.1:1@evil.example/callback", "http://evil.example/callback", "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback", "http://127.0.0.1:123456/callback", "http://127.0.0.1:١/callback",
        "http://127.1/callback", "http://0.0.0.0:1/callback", "http://LOCALHOST:1/callback",
        "\nhttp://127.0.0.1:1/callback", "http://127.0.0.1:1/callback\n", "",
    ],
)  # fmt: skip
def test_everything_else_is_not(uri):
    assert not PERSON.is_redirect_uri(uri)
    assert not BEHIND.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://hub.example.org/user/a.b/micromegas/callback",
        "http://127.0.0.1:8888/user/a.b/micromegas/callback",
        "http://[::1]:8888/user/a.b/micromegas/callback",
    ],
)
def test_the_callback_of_the_jupyter_server_in_front_is_one_at_any_host(uri):
    assert BEHIND.is_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "https://hub.example.org/user/b/micromegas/callback", "https://hub.example.org/user/aXb/micromegas/callback",
        "https://hub.example.org/user/a.b/micromegas/callback?x=1",
        "https://hub.example.org/user/a.b/micromegas/callback/",
        "https://hub.example.org/other/user/a.b/micromegas/callback",
        "https://person@hub.example.org/user/a.b/micromegas/callback",
        "https://hub.example.org/user/a.b/micromegas/callback\n",
        "javascript://hub.example.org/user/a.b/micromegas/callback", "//hub.example.org/user/a.b/micromegas/callback",
    ],
)  # fmt: skip
def test_nothing_else_of_another_host_is(uri):
    assert not BEHIND.is_redirect_uri(uri)


def test_the_service_account_has_no_redirect_uri():
    assert not SERVICE.is_redirect_uri("http://127.0.0.1:1/callback")


HUB = {"JUPYTERHUB_SERVICE_PREFIX": "/user/alice/"}


@pytest.mark.parametrize(
    ("command", "environ", "expected"),
    [
        (["jupyter", "lab"], {}, "/"),
        (["jupyter", "lab"], HUB, "/user/alice/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/"], {}, "/x/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/"], HUB, "/x/"),
        (["jupyter", "notebook", "--NotebookApp.base_url=x/y"], {}, "/x/y/"),
        (["jupyter", "lab", "--ServerApp.base_url", "/x"], {}, "/x/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/", "--ServerApp.base_url=/y/"], {}, "/y/"),
        (["jupyter", "lab", "--ServerApp.base_url=/"], HUB, "/"),
        (["jupyter", "lab", "--ServerApp.base_url"], {}, "/"),
        (["jupyter", "lab", "--ServerApp.base_url=/x/; Path=/"], {}, "/"),
        (
            ["jupyterhub-singleuser"],
            {"JUPYTERHUB_SERVICE_PREFIX": "/user/a%40b.example/named/"},
            "/user/a%40b.example/named/",
        ),
    ],
)
def test_the_base_url_is_what_jupyter_takes(command, environ, expected):
    assert find_base_url(command, environ) == expected


def test_only_the_kernel_of_the_notebook_changes(tmp_path):
    copy_notebooks(tmp_path / "notebooks")
    path = tmp_path / "notebooks" / JOB_NOTEBOOK
    before = json.loads(path.read_text(encoding="utf-8"))

    run_in_job_kernel(path)

    after = nbformat.read(path, as_version=4)
    nbformat.validate(after)
    assert after.metadata.pop("kernelspec").name == JOB_KERNEL
    assert before["metadata"].pop("kernelspec")["name"] == "python3"
    assert json.loads(nbformat.writes(after)) == before
