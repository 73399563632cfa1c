from __future__ import annotations

from typing import Any

import pytest
from jupyterhub.app import JupyterHub
from traitlets.config import Config

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.configuration import kernel_address

SERVICE_URL = "http://127.0.0.1:8190"


def address(**section: Any) -> str:
    config = Config()
    config.JupyterHub.update(section)
    return kernel_address(config, service_url=SERVICE_URL, path="service/")


@pytest.mark.parametrize(
    ("section", "bind_url", "url"),
    [
        ({}, "http://:8000", "http://127.0.0.1:8000/service/"),
        ({"ip": "10.1.2.3"}, "http://10.1.2.3:8000/", "http://10.1.2.3:8000/service/"),
        ({"ip": "fd00::1", "port": 80}, "http://[fd00::1]:80/", "http://[fd00::1]:80/service/"),
        ({"port": 443}, "http://:443/", "http://127.0.0.1:443/service/"),
        ({"ip": "", "bind_url": "http://10.1.2.3:9000"}, "http://10.1.2.3:9000", "http://10.1.2.3:9000/service/"),
        ({"ip": "10.1.2.3", "bind_url": "http://:9000"}, "http://10.1.2.3:8000/", "http://10.1.2.3:8000/service/"),
        ({"bind_url": "http://hub"}, "http://hub", "http://hub:80/service/"),
        ({"bind_url": "http://hub:9000/jh"}, "http://hub:9000/jh", "http://hub:9000/jh/service/"),
        (
            {"ip": "10.1.2.3", "bind_url": "http://:9000/jh"},
            "http://10.1.2.3:8000/jh/",
            "http://10.1.2.3:8000/jh/service/",
        ),
        ({"port": 8100, "bind_url": "http://hub:9000/jh"}, "http://:8100/jh/", "http://127.0.0.1:8100/jh/service/"),
        ({"base_url": "/x", "bind_url": "http://hub:9000/jh"}, "http://:8000/x/", "http://127.0.0.1:8000/x/service/"),
        ({"bind_url": "https://hub:9000"}, "http://hub:9000", "http://hub:9000/service/"),
        ({"bind_url": "https://hub", "ssl_cert": "hub.pem"}, "https://hub", "https://hub:443/service/"),
        ({"bind_url": "http://hub:9000", "ssl_cert": "hub.pem"}, "https://hub:9000", "https://hub:9000/service/"),
    ],
)
def test_kernels_call_where_the_hub_makes_its_proxy_listen(section: dict[str, Any], bind_url: str, url: str) -> None:
    config = Config()
    config.JupyterHub.update(section)

    assert JupyterHub(config=config).bind_url == bind_url
    assert address(**section, spawner_class="dockerspawner.DockerSpawner") == url


def test_a_base_url_of_its_own_counts_and_not_the_path_of_the_bind_url() -> None:
    section = {"base_url": "/", "bind_url": "http://hub:9000/jh"}
    config = Config()
    config.JupyterHub.update(section)

    assert JupyterHub(config=config).base_url == "/"
    assert address(**section, spawner_class="dockerspawner.DockerSpawner") == "http://hub:9000/service/"


@pytest.mark.parametrize(
    "section", [{}, {"port": 443}, {"bind_url": "https://:443"}, {"bind_url": "https://10.1.2.3/"}, {"ip": "localhost"}]
)
def test_kernels_call_the_service_itself_where_the_proxys_certificate_is_for_no_address_of_theirs(
    section: dict[str, Any],
) -> None:
    assert address(ssl_cert="hub.pem", **section) == f"{SERVICE_URL}/service/"


@pytest.mark.parametrize(
    "bind_url", ["http+unix://%2Frun%2Fhub", "hub:8000", "", "http://hub:99999", "http://[hub", 8000]
)
def test_an_address_of_the_hub_that_no_kernel_can_call_is_refused_by_its_name(bind_url: object) -> None:
    with pytest.raises(ConfigurationError) as refused:
        address(bind_url=bind_url)

    assert refused.value.key == "JupyterHub.bind_url"
    assert "kernel_url" in refused.value.remedy
