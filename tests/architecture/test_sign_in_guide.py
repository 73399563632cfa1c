"""The guide to signing in says what the client half does: codes, choices, presets, profiles, commands, times."""

import argparse
import re
import shlex
from itertools import pairwise

import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.auth.flows.select import FLOW_TABLE
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.client import (
    CLIENT_PRESETS,
    Bearer,
    Flow,
    WorkloadPlatform,
    parse_client_settings,
)
from micromegas_jupyter.core.json import decode_strict_json
from tests.architecture.guide_text import (
    blocks,
    read_page,
    table_rows,
)

PAGES = ("sign-in.md", "sign-in-providers.md", "service-accounts.md", "storing-secrets.md", "troubleshooting.md")


def everything():
    return "\n".join(read_page(name) for name in PAGES)


def code_rows():
    rows = table_rows(read_page("troubleshooting.md"))
    return {row[0]: row for row in rows if re.fullmatch(r"[A-Z]+\d{3}", row[0])}


def variables(block):
    if block.language == "sh":
        words = [
            word for line in block.text.split("\n") if line.startswith("export ") for word in shlex.split(line)[1:]
        ]
        return dict(word.split("=", 1) for word in words)
    lines = [line.strip() for line in block.text.split("\n")]
    listed = {
        name.removeprefix("- name: "): value.removeprefix("value: ")
        for name, value in pairwise(lines)
        if name.startswith("- name: MICROMEGAS_")
    }
    mapped = dict(line.split(": ", 1) for line in lines if line.startswith("MICROMEGAS_"))
    return {**listed, **mapped}


def commands(block):
    if block.language == "sh":
        lines = [line for line in block.text.split("\n") if line.startswith("micromegas ")]
        return [line.partition(" > ")[0] for line in lines]
    lines = [line.strip() for line in block.text.split("\n")]
    return [line.removeprefix("- run: ").partition(" > ")[0] for line in lines if line.startswith("- run: micromegas ")]


GROUPS = ("AUTH", "AVAIL", "CONF", "USE")


class TestCodes:
    """Whoever has a code finds its row."""

    def test_every_code_of_a_sign_in_has_a_row(self):
        codes = {code for code in errors.error_classes() if code.startswith(GROUPS)}

        assert codes
        assert sorted(codes - set(code_rows())) == []

    def test_every_row_is_of_a_code(self):
        assert sorted(set(code_rows()) - set(errors.error_classes())) == []


class TestChoice:
    """The page's table is the code's table."""

    def test_every_row_of_the_choice_stands_in_the_page(self):
        expected = [
            (row.environment.value, ", ".join(f"`{flow}`" for flow in row.flows) or "none", row.reason)
            for row in FLOW_TABLE
        ]
        names = {row.environment.value for row in FLOW_TABLE}

        assert [row for row in table_rows(read_page("sign-in.md")) if row[0] in names] == expected

    @pytest.mark.parametrize("flow", Flow)
    def test_every_flow_is_explained(self, flow):
        section = read_page("sign-in.md").split("\n## The four flows\n")[1].split("\n## ")[0]

        assert f"`{flow}`" in section


class TestProviders:
    """Every preset has a guide with a profile that can be used."""

    @pytest.mark.parametrize("name", CLIENT_PRESETS)
    def test_every_preset_has_a_section_with_a_profile_that_names_it(self, name):
        sections = re.split(r"^## ", read_page("sign-in-providers.md"), flags=re.MULTILINE)

        found = [section for section in sections if section.split("\n")[0].endswith(f"(`{name}`)")]

        assert len(found) == 1
        assert f'"preset": "{name}"' in found[0]

    @pytest.mark.parametrize("name", sorted(CLIENT_PRESETS))
    def test_every_profile_sends_what_the_servers_of_the_other_guide_accept(self, name):
        block = next(block for block in blocks("sign-in-providers.md") if f'"preset": "{name}"' in block.text)

        settings = parse_client_settings({}, config_text=block.text)

        assert settings.preset == name
        assert settings.bearer is Bearer.ID_TOKEN


class TestServiceAccounts:
    """Every platform and every exchange is explained."""

    @pytest.mark.parametrize("platform", WorkloadPlatform)
    def test_every_platform_has_an_example(self, platform):
        text = read_page("service-accounts.md")

        assert re.search(rf"MICROMEGAS_OIDC_WORKLOAD(: |=|\s+value: ){platform}\n", text)


def _profiles():
    return [block for block in blocks(*PAGES) if block.language == "json"]


class TestExamples:
    """What somebody copies is what the program reads."""

    @pytest.mark.parametrize("block", _profiles(), ids=lambda block: block.place)
    def test_every_block_of_json_is_a_config_json_whose_profiles_can_be_used(self, block):
        names = list(decode_strict_json(block.text)["profiles"])

        settings = [parse_client_settings({}, config_text=block.text, profile=name) for name in names]

        assert settings
        assert [each.profile for each in settings if each.issuer is None or each.client_id is None] == []

    @pytest.mark.parametrize(
        "block",
        [block for block in blocks(*PAGES) if block.language in {"sh", "yaml"} and "MICROMEGAS_" in block.text],
        ids=lambda block: block.place,
    )
    def test_every_block_of_variables_can_be_used(self, block):
        environ = variables(block)

        settings = parse_client_settings(environ)

        assert environ
        assert settings.origins

    @pytest.mark.parametrize("line", [line for block in blocks(*PAGES) for line in commands(block)])
    def test_every_command_is_one(self, line):
        words = shlex.split(line, comments=True)

        arguments = build_parser().parse_args(words[1:])

        assert arguments.command == words[1]

    def test_every_option_that_the_text_names_is_one_of_its_command(self):
        commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
        named = re.findall(r"`micromegas (\w+)[^`]*?(--[a-z-]+)", everything())

        assert named
        assert [pair for pair in named if pair[1] not in commands.choices[pair[0]]._option_string_actions] == []
