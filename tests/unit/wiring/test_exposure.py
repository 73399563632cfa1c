"""A server that others can reach is encrypted and asks who is calling, or its administrator said otherwise."""

from pathlib import Path

import pytest

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.server_side import ServeOptions, check_exposure

LAKE = Path("lake")
TLS = {"certificate_file": Path("cert.pem"), "key_file": Path("key.pem")}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"disable_auth": True},
        {"host": "::1"},
        {"host": "0.0.0.0", **TLS},
        {"host": "0.0.0.0", "insecure": True},
        {"host": "0.0.0.0", "insecure": True, "disable_auth": True},
    ],
)
def test_it_may_run(options):
    check_exposure(ServeOptions(lake=LAKE, **options))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"host": "0.0.0.0"}, "--host"),
        ({"host": "10.0.0.1", "disable_auth": True}, "--disable-auth"),
        ({"host": "0.0.0.0", "disable_auth": True, **TLS}, "--disable-auth"),
        ({"certificate_file": Path("cert.pem")}, "--tls-certificate"),
        ({"key_file": Path("key.pem")}, "--tls-certificate"),
        ({"certificate_file": Path("cert.pem"), "insecure": True}, "--tls-certificate"),
        ({"client_ca_file": Path("ca.pem")}, "--tls-client-ca"),
        ({"client_ca_file": Path("ca.pem"), "insecure": True}, "--tls-client-ca"),
    ],
)
def test_it_may_not_run(options, key):
    with pytest.raises(ConfigurationError) as caught:
        check_exposure(ServeOptions(lake=LAKE, **options))

    assert caught.value.key == key
