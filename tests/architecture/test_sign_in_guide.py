"""The guide to signing in says what the client half does: codes, choices, presets, profiles, commands, times."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from micromegas_jupyter import errors
from micromegas_jupyter.auth.flows import device, loopback, paste
from micromegas_jupyter.auth.flows.select import FLOW_TABLE
from micromegas_jupyter.auth.provider_connection import MAX_OFFSET_SECONDS
from micromegas_jupyter.auth.tokens.manager import MARGIN_SHARE, MAX_MARGIN
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.client import (
    CLIENT_PRESETS,
    Bearer,
    Flow,
    WorkloadExchange,
    WorkloadPlatform,
    parse_client_settings,
)
from micromegas_jupyter.core.http import PLATFORM_TIMEOUT_SECONDS
from micromegas_jupyter.core.json import decode_strict_json
from micromegas_jupyter.doctor.examination import TOLERATED_OFFSET_SECONDS
from tests.architecture.guide_text import (
    ROOT,
    Block,
    blocks,
    read_page,
    table_rows,
)
from tests.architecture.sign_in_text import (
    PAGES,
    code_rows,
    commands,
    everything,
    in_one_line,
    source,
    variables,
)

GROUPS = ("AUTH", "AVAIL", "CONF", "USE")
MIN_FRAGMENT_CHARACTERS = 8
MAX_README_LINES = 15


class TestCodes:
    """Whoever has a code finds its row."""

    def test_every_code_of_a_sign_in_has_a_row(self):
        codes = {code for code in errors.error_classes() if code.startswith(GROUPS)}

        assert codes
        assert sorted(codes - set(code_rows())) == []

    def test_every_row_is_of_a_code(self):
        assert sorted(set(code_rows()) - set(errors.error_classes())) == []

    def test_every_sentence_that_a_table_quotes_is_one_of_the_code(self):
        cells = [row[1] for row in code_rows().values()]
        cells += [row[0] for row in table_rows(read_page("service-accounts.md")) if re.match(r"(AUTH|CONF)\d", row[0])]
        sentences = [sentence for cell in cells for sentence in re.findall(r"\*([^*]+)\*", cell)]
        fragments = [part.strip(" ().,") for sentence in sentences for part in sentence.split("…")]
        long_ones = [fragment for fragment in fragments if len(fragment) >= MIN_FRAGMENT_CHARACTERS]

        assert len(long_ones) > 30
        assert [fragment for fragment in long_ones if fragment not in source()] == []


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

    @pytest.mark.parametrize("name", ["okta", "auth0", "cognito"])
    def test_a_provider_that_compares_ports_gets_the_port_that_a_pasted_address_has(self, name):
        block = next(block for block in blocks("sign-in-providers.md") if f'"preset": "{name}"' in block.text)

        settings = parse_client_settings({}, config_text=block.text)

        assert settings.redirect_uri == f"http://127.0.0.1:{paste.PASTE_PORT}/callback"


class TestServiceAccounts:
    """Every platform and every exchange is explained."""

    @pytest.mark.parametrize("platform", WorkloadPlatform)
    def test_every_platform_has_an_example(self, platform):
        text = read_page("service-accounts.md")

        assert re.search(rf"MICROMEGAS_OIDC_WORKLOAD(: |=|\s+value: ){platform}\n", text)

    @pytest.mark.parametrize("exchange", WorkloadExchange)
    def test_every_exchange_has_a_row(self, exchange):
        rows = [row[0] for row in table_rows(read_page("service-accounts.md"))]

        assert any(cell.startswith(f"`{exchange}`") for cell in rows)


def _profiles() -> list[Block]:
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

    def test_every_variable_that_the_text_names_is_one(self):
        named = set(re.findall(r"\bMICROMEGAS_[A-Z_]+[A-Z]\b", everything()))

        assert sorted(name for name in named if name not in source()) == []


class TestLinks:
    """What the pages point at is there."""

    @pytest.mark.parametrize("page", PAGES)
    def test_every_page_is_linked_from_the_readme(self, page):
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        section = readme.split("\n## Sign in with your own provider\n")[1].split("\n## ")[0].strip()

        assert f"(docs/{page})" in section
        assert len(section.split("\n")) <= MAX_README_LINES


class TestNumbers:
    """Times and counts that the pages state are those of the code."""

    def test_how_long_a_link_an_address_and_a_code_last(self):
        assert loopback.TIMEOUT_SECONDS == 5 * 60
        assert "The link lasts five minutes" in in_one_line("sign-in.md")
        assert paste.TIMEOUT_SECONDS == 10 * 60
        assert device.MAX_DEVICE_SECONDS == 30 * 60
        assert "at most half an hour here" in in_one_line("troubleshooting.md")

    def test_when_a_token_is_renewed(self):
        assert MAX_MARGIN.total_seconds() == 5 * 60
        assert MAX_MARGIN.total_seconds() * MARGIN_SHARE == 20 * 60
        assert "when it lives less than twenty minutes" in in_one_line("sign-in.md")

    def test_how_far_a_clock_may_be_off(self):
        assert MAX_OFFSET_SECONDS == 24 * 3600
        assert TOLERATED_OFFSET_SECONDS == 30
        assert "up to a day" in in_one_line("sign-in.md")
        assert "fails from half a minute on" in in_one_line("troubleshooting.md")

    def test_how_often_an_address_may_be_pasted(self):
        assert paste.MAX_TRIES == 10
        assert "ten tries" in in_one_line("SECURITY.md")

    def test_how_long_a_platform_may_take(self):
        assert PLATFORM_TIMEOUT_SECONDS == 5
        assert "within five seconds for a platform" in in_one_line("service-accounts.md")
