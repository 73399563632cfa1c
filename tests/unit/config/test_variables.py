"""Which variables the server reports as having no effect."""

import re
from pathlib import Path

import pytest

import micromegas_jupyter
from micromegas_jupyter.config.variables import find_unknown_variables, known_variables

SOURCES = Path(micromegas_jupyter.__file__).parent
LITERAL = re.compile(r"\"(MICROMEGAS_[A-Z0-9_]*[A-Z0-9])\"")


def test_every_variable_that_the_package_reads_is_known():
    read = {name for path in SOURCES.rglob("*.py") for name in LITERAL.findall(path.read_text(encoding="utf-8"))}

    assert read - known_variables() == {"MICROMEGAS_OIDC_ISSUERS"}


def test_variables_of_the_client_the_server_and_kubernetes_are_not_reported():
    kubernetes = (
        "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_FLIGHT", "PORT", "PORT_50051_TCP", "PORT_50051_TCP_ADDR",
        "PORT_50051_TCP_PORT", "PORT_8082_TCP_PROTO",
    )  # fmt: skip
    services = ("MICROMEGAS", "MICROMEGAS_SERVER", "MICROMEGAS_LAKE_HTTP")
    of_kubernetes = [f"{service}_{end}" for service in services for end in kubernetes]

    assert find_unknown_variables(dict.fromkeys([*known_variables(), *of_kubernetes, "PATH"], "1")) == {}


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "MICROMEGAS_OIDC_ISSUERS",
            "Set MICROMEGAS_OIDC_CONFIG, which lists the issuers whose tokens the server accepts.",
        ),
        ("MICROMEGAS_SERVER_MAX_QUERYS", "Did you mean MICROMEGAS_SERVER_MAX_QUERIES?"),
        ("MICROMEGAS_ADMIN", "Did you mean MICROMEGAS_ADMINS?"),
        ("MICROMEGAS_OBJECT_STORE_URI", "Remove it: no setting has this name."),
    ],
)
def test_an_unknown_variable_is_reported_with_what_to_do(name, remedy):
    assert find_unknown_variables({name: "1"}) == {name: remedy}


def test_many_and_long_names_are_reported_within_bounds():
    found = find_unknown_variables({f"MICROMEGAS_X{number:04}{'X' * 1000}": "1" for number in range(1000)})

    assert len(found) == 20
    assert max(map(len, found)) == 100
