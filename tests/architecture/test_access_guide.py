"""The administrator guide says what the validator does: codes, settings, commands, metrics, times."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shlex

import pytest

from micromegas_jupyter.access.audit import AccessAudit
from micromegas_jupyter.access.explain import STEP_REASONS
from micromegas_jupyter.access.validator import Refused, event_of
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.access import AccessSettings, IssuerSetting, OidcServerSettings, RateLimits
from micromegas_jupyter.config.access_config import CONFIG_MEMBERS, parse_access_settings
from micromegas_jupyter.config.issuer_config import ISSUER_MEMBERS, OIDC_MEMBERS
from micromegas_jupyter.config.presets import PRESETS
from micromegas_jupyter.engine.security.conditions import condition_problem
from micromegas_jupyter.telemetry import TABLES
from tests.architecture.exercised_metrics import access_metrics
from tests.architecture.guide_text import (
    GUIDE,
    ROOT,
    Block,
    blocks,
    headings,
    read_guide,
    read_page,
    table_rows,
)
from tests.architecture.reason_codes import collect_codes
from tests.unit.access.claim_cases import WRONG_CLAIMS
from tests.unit.access.form_cases import WRONG_FORM
from tests.unit.access.key_cases import WRONG_KEY

PACKAGE = ROOT / "micromegas_jupyter"
# `nbf` is only read when it is there.
UNREACHABLE = frozenset({"not_before_missing"})
DEFAULTS = OidcServerSettings(issuers=())
TOKEN_LIFE_SECONDS = 3600


def _explained_codes() -> list[str]:
    cells = [row[0] for row in table_rows(read_page("access-reasons.md"))]
    return [found[1] for cell in cells if (found := re.fullmatch(r"`([a-z0-9_]+)`", cell))]


def _given_codes() -> set[str]:
    return set(collect_codes(sorted(PACKAGE.rglob("*.py")))) - UNREACHABLE


class TestReasonCodes:
    """Every code that the package can give has one row, and every row is a code."""

    def test_every_code_is_explained(self):
        assert sorted(_given_codes() - set(_explained_codes())) == []

    def test_every_explained_code_exists(self):
        assert sorted(set(_explained_codes()) - _given_codes()) == []

    def test_no_code_is_explained_twice(self):
        codes = _explained_codes()

        assert sorted({code for code in codes if codes.count(code) > 1}) == []

    def test_every_code_of_the_token_tables_is_explained(self):
        expected = {reason for table in (WRONG_FORM, WRONG_CLAIMS, WRONG_KEY) for _token, reason in table.values()}

        assert sorted(expected - set(_explained_codes())) == []

    def test_every_code_that_the_command_explains_exists(self):
        assert sorted(STEP_REASONS - UNREACHABLE - set(_explained_codes())) == []

    def test_every_code_that_the_other_pages_name_exists(self):
        named = set(re.findall(r"refused as `([a-z_]+)`", read_guide()))

        assert named
        assert sorted(named - _given_codes()) == []

    def test_every_row_says_what_it_means_and_what_to_do(self):
        rows = [row for row in table_rows(read_page("access-reasons.md")) if row[0].startswith("`")]

        assert [row[0] for row in rows if len(row) != 3 or not all(row)] == []


def _configuration_files() -> list[Block]:
    return [block for block in blocks(*GUIDE) if block.language == "json"]


def _parsed(block: Block) -> AccessSettings:
    return parse_access_settings({"MICROMEGAS_ACCESS_CONFIG": "access.json"}, config_text=block.text)


def _exported_variables() -> list[tuple[str, str]]:
    lines = [line for block in blocks(*GUIDE) if block.language == "sh" for line in block.text.split("\n")]
    words = [shlex.split(line)[1] for line in lines if line.startswith("export ")]
    return [(name, value) for name, _, value in (word.partition("=") for word in words)]


class TestConfigurations:
    """What somebody copies out of the guide is what the server reads."""

    @pytest.mark.parametrize("block", _configuration_files(), ids=lambda block: block.place)
    def test_every_block_of_json_is_a_configuration_file_that_is_accepted(self, block):
        assert "`access.json`" in block.announced_by

        settings = _parsed(block)

        assert settings.oidc is not None or settings.api_keys

    def test_every_variable_that_is_exported_is_accepted(self):
        exported = {name: value for name, value in _exported_variables() if name != "MICROMEGAS_ACCESS_CONFIG"}

        settings = parse_access_settings(exported)

        assert settings.oidc is not None
        assert settings.admins

    @pytest.mark.parametrize("preset", PRESETS)
    def test_every_preset_has_a_section_with_a_configuration_that_uses_it(self, preset):
        sections = re.split(r"^## ", read_page("access-providers.md"), flags=re.MULTILINE)

        found = [section for section in sections if section.split("\n")[0].endswith(f"(`{preset}`)")]

        assert len(found) == 1
        assert f'"preset": "{preset}"' in found[0]

    @pytest.mark.parametrize("member", sorted(CONFIG_MEMBERS | OIDC_MEMBERS | ISSUER_MEMBERS))
    def test_every_member_has_a_row(self, member):
        rows = [row[0] for row in table_rows(read_page("settings.md"))]

        assert f"`{member}`" in rows

    def test_every_condition_of_a_role_fits_its_table(self):
        schemas = {table.name: table.schema for table in TABLES}
        found = [
            (table, condition)
            for block in _configuration_files()
            for role in (_parsed(block).roles or {}).values()
            for table, condition in role.tables.items()
            if condition is not None
        ]

        problems = [condition_problem(condition, schemas[table]) for table, condition in found]

        assert found
        assert [problem for problem in problems if problem is not None] == []


class TestCommands:
    """A command line that somebody copies is one that the program reads."""

    @pytest.mark.parametrize(
        "line",
        [
            line.strip()
            for block in blocks(*GUIDE)
            if block.language == "sh"
            for line in block.text.split("\n")
            if line.startswith("micromegas ")
        ],
    )
    def test_every_command_is_one(self, line):
        words = shlex.split(line, comments=True)

        arguments = build_parser().parse_args(words[1:])

        assert arguments.command == words[1]

    def test_every_option_that_the_text_names_is_one_of_its_command(self):
        commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
        named = re.findall(r"`micromegas (\w+)[^`]*?(--[a-z-]+)", read_guide())

        unknown = [pair for pair in named if pair[1] not in commands.choices[pair[0]]._option_string_actions]

        assert named
        assert unknown == []


class TestMetrics:
    """The metrics that the guide names are those that the server reports."""

    def test_all_and_only_the_reported_metrics_are_named(self):
        families = list(access_metrics().registry.collect())

        reported = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}

        assert set(re.findall(r"micromegas_access_[a-z_]+", read_guide())) == reported

    def test_every_label_that_the_guide_names_is_one(self):
        labels = {
            (sample.name, frozenset(sample.labels))
            for family in access_metrics().registry.collect()
            for sample in family.samples
        }

        stated = re.findall(r"`(micromegas_access_[a-z_]+)\{([a-z, ]+)\}`", read_page("access.md"))

        assert stated
        assert [name for name, listed in stated if (name, frozenset(listed.split(", "))) not in labels] == []


def test_every_field_of_an_audit_line_is_named(caplog):
    section = read_page("access.md").split("\n## Audit\n")[1].split("\n## ")[0]
    with caplog.at_level(logging.INFO, logger="micromegas_jupyter.audit.access"):
        AccessAudit().record(event_of(Refused(reason="expired"), "a.b.c"))

    fields = json.loads(caplog.records[0].getMessage())

    assert sorted(field for field in fields if f"`{field}`" not in section) == ["event"]


class TestNumbers:
    """Defaults and times are those of the code."""

    @pytest.mark.parametrize(
        ("member", "default"),
        [
            ("jwks_refresh_interval_secs", DEFAULTS.jwks_refresh_interval_seconds),
            ("jwks_stale_limit_secs", DEFAULTS.jwks_stale_limit_seconds),
            ("jwks_cool_down_secs", DEFAULTS.jwks_cool_down_seconds),
            ("token_cache_size", DEFAULTS.token_cache_size),
            ("token_cache_ttl_secs", DEFAULTS.token_cache_ttl_seconds),
            ("leeway_secs", IssuerSetting(issuer="https://id.example.com").leeway_seconds),
        ],
    )
    def test_a_default_is_the_one_that_is_stated(self, member, default):
        stated = [row[2] for row in table_rows(read_page("access.md")) if row[0] == f"`{member}`"]

        assert stated == [str(default)]

    @pytest.mark.parametrize("name", RateLimits.__slots__)
    def test_a_rate_limit_is_the_one_that_is_stated(self, name):
        stated = [row[2] for row in table_rows(read_page("settings.md")) if row[0] == f"`{name}`"]

        assert stated == [f"{getattr(RateLimits(), name):g}"]

    def test_the_times_of_a_revocation_follow_from_the_defaults(self):
        leeway_seconds = IssuerSetting(issuer="https://id.example.com").leeway_seconds
        rows = {row[0]: row[-1] for row in table_rows(read_page("access.md")) if len(row) == 3}

        account = rows["close the account at the provider"]
        key = rows["withdraw a signing key at the provider"]
        outage = rows["the same, while the provider does not answer"]

        cache_seconds = DEFAULTS.token_cache_ttl_seconds
        assert account == f"{(TOKEN_LIFE_SECONDS + leeway_seconds) // 60} min"
        assert key == f"{(DEFAULTS.jwks_refresh_interval_seconds + cache_seconds) // 60} min"
        assert outage == f"{DEFAULTS.jwks_stale_limit_seconds // 3600} h {cache_seconds // 60} min"


def test_every_log_sentence_that_the_guide_quotes_is_one():
    text = read_page("access.md")
    source = re.sub(r'"\s+"', "", "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")))
    quoted = [" ".join(found.split()) for found in re.findall(r"(?<!\*)\*([A-Za-z][^*]{20,140})\*(?!\*)", text)]

    assert quoted
    assert [sentence for sentence in quoted if sentence not in source] == []


def test_every_environment_variable_that_the_guide_names_is_one():
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r"\bMICROMEGAS_[A-Z_]+[A-Z]\b", read_guide()))

    assert sorted(name for name in named if name not in source) == []


def test_the_providers_page_has_a_section_for_every_provider_of_its_table():
    rows = [row[1].strip("`") for row in table_rows(read_page("access-providers.md")) if row[1].startswith("`")]
    sections = [
        found[1]
        for heading in headings(read_page("access-providers.md"))
        if (found := re.search(r"\(`(\w+)`\)$", heading))
    ]

    assert sections == rows
