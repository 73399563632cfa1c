"""The options of `micromegas login`."""

import pytest

from micromegas_jupyter.cli.login_command import given_settings
from micromegas_jupyter.cli.main import build_parser


def _parsed(*options):
    return build_parser(only="login").parse_args(["login", *options])


def test_options_stand_in_for_variables():
    arguments = _parsed(
        "--issuer", "https://id.example.com", "--client-id", "app", "--scope", "openid", "--audience", "lake"
    )  # fmt: skip

    assert given_settings(arguments) == {
        "MICROMEGAS_OIDC_ISSUER": "https://id.example.com",
        "MICROMEGAS_OIDC_CLIENT_ID": "app",
        "MICROMEGAS_OIDC_SCOPE": "openid",
        "MICROMEGAS_OIDC_AUDIENCE": "lake",
    }


def test_what_is_not_given_leaves_the_settings_alone():
    assert given_settings(_parsed()) == {}


@pytest.mark.parametrize("flow", ["auto", "browser", "device", "paste", "hub"])
def test_the_flows_that_a_terminal_can_carry_out_are_offered(flow):
    assert _parsed("--flow", flow).flow == flow


@pytest.mark.parametrize("flow", ["redirect", "implicit"])
def test_no_other_flow_is_offered(flow, capsys):
    with pytest.raises(SystemExit) as caught:
        _parsed("--flow", flow)

    assert caught.value.code == 2
    assert "choose from" in capsys.readouterr().err
