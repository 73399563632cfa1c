"""The server's settings: options, variables and a file make one object, or an error names what was used."""

import dataclasses

import pytest

from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.server import (
    SETTINGS,
    ServerSettings,
    parse_server_settings,
)
from micromegas_jupyter.errors import ConfigurationError

NUMBERS = [setting for setting in SETTINGS if setting.limits is not None]
by_name = pytest.mark.parametrize("setting", NUMBERS, ids=lambda setting: setting.name)


def _refusal(**sources):
    with pytest.raises(ConfigurationError) as caught:
        parse_server_settings(**{"environ": {}, **sources})
    assert caught.value.code == "CONF001"
    return caught.value


def test_without_anything_or_with_empty_variables_there_are_the_defaults():
    empty = {setting.variable: "" for setting in SETTINGS if setting.variable}

    assert parse_server_settings({}) == parse_server_settings(empty, config_text="") == ServerSettings()


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("= 1", "serve.toml", "not valid TOML"),
        ("port = 1\nport = 2", "serve.toml", "not valid TOML"),
        ("max-queris = 1", "serve.toml", "unknown key 'max-queris'"),
        ("max_queries = 1", "serve.toml", "unknown key 'max_queries'"),
        ("[limits]\nmax-rows = 1", "serve.toml", "unknown key 'limits'"),
        ("port = '5'", "serve.toml: port", "not a number from 0 to 65,535"),
        ("port = true", "serve.toml: port", "not a number"),
        ("max-rows = 1.5", "serve.toml: max-rows", "not a number"),
        ("disable-auth = 'no'", "serve.toml: disable-auth", "not true or false"),
        ("log-level = 'loud'", "serve.toml: log-level", "not one of debug, info, warning, error"),
        ("trusted-proxy = ['proxy.example']", "serve.toml: trusted-proxy", "not a list of IP addresses"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_its_key(text, key, said):
    refused = _refusal(config_text=text, config_name="serve.toml")

    assert refused.key in {key, "serve.toml: port"}
    assert said in str(refused)


@by_name
def test_the_ends_of_the_range_are_accepted_and_nothing_beyond(setting):
    least, most = setting.limits
    for number in (least, most):
        found = parse_server_settings({}, options={setting.name: str(int(number))})
        assert found == dataclasses.replace(ServerSettings(), **{setting.name: number})
    for number in (least - 1, most + 1):
        assert _refusal(options={setting.name: str(int(number))}).key == setting.option


@pytest.mark.parametrize("text", ["-1", "1.5", "1e3", "many", " 7", "७", "9" * 5000, "0x10", "nan", "\n1", "1_0"])
def test_what_is_not_a_number_is_refused_by_the_name_that_was_used(text):
    by_option = _refusal(options={"max_rows": text}, environ={"MICROMEGAS_SERVER_MAX_ROWS": "x"})
    by_variable = _refusal(environ={"MICROMEGAS_SERVER_MAX_ROWS": text})

    assert (by_option.key, by_variable.key) == ("--max-rows", "MICROMEGAS_SERVER_MAX_ROWS")
    assert len(str(by_option)) < 500
    assert "many" not in str(by_option)


def _serve_help(option, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(["serve", option])
    assert caught.value.code == 0
    return " ".join(capsys.readouterr().out.replace(", --disable_auth", "").split())


def test_the_help_shows_fifteen_options_and_help_all_shows_all(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    short, full = _serve_help("--help", capsys), _serve_help("--help-all", capsys)

    options = {setting.option for setting in SETTINGS} | {"--config"}
    assert len(options & set(short.split())) == 15
    assert options <= set(full.split())
    for setting in NUMBERS:
        least, most = setting.limits
        ends = f"{least} to {most}; default: {setting.default:g}" if setting.default < 1e5 else f"{least} to {most}"
        assert f"{setting.meaning}; {ends}" in full
