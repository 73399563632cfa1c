"""The administrator guide says what the validator does: codes, settings, commands, metrics, times."""

from __future__ import annotations

import re
import shlex

import pytest

from micromegas_jupyter.access.explain import STEP_REASONS
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.access import AccessSettings, IssuerSetting, OidcServerSettings, RateLimits
from micromegas_jupyter.config.access_config import CONFIG_MEMBERS, parse_access_settings
from micromegas_jupyter.config.issuer_config import ISSUER_MEMBERS, OIDC_MEMBERS
from micromegas_jupyter.config.presets import PRESETS
from micromegas_jupyter.engine.security import condition_problem
from micromegas_jupyter.telemetry import TABLES
from tests.architecture.exercised_metrics import access_metrics
from tests.architecture.guide_text import (
    GUIDE,
    ROOT,
    Block,
    blocks,
    read_guide,
    read_page,
    table_rows,
)
from tests.unit.access.claim_cases import WRONG_CLAIMS
from tests.unit.access.form_cases import WRONG_FORM
from tests.unit.access.key_cases import WRONG_KEY

PACKAGE = ROOT / "micromegas_jupyter"
# `nbf` is only read when it is there.
UNREACHABLE = frozenset({"not_before_missing"})
DEFAULTS = OidcServerSettings(issuers=())


def _explained_codes() -> list[str]:
    cells = [row[0] for row in table_rows(read_page("access-reasons.md"))]
    return [found[1] for cell in cells if (found := re.fullmatch(r"`([a-z0-9_]+)`", cell))]


_CODE = re.compile(r'(?:TokenProblem|UnknownKey)\(\s*"([a-z0-9_]+)"|\breason="([a-z0-9_]+)"')


class TestReasonCodes:
    """Every code that the package writes out has one row, and every row is a code of the package or its tests."""

    def test_every_code_is_explained(self):
        paths = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "hub"]
        source = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        written = {direct or named for direct, named in _CODE.findall(source)}

        assert len(written) > 50
        assert sorted((written | STEP_REASONS) - UNREACHABLE - set(_explained_codes())) == []

    def test_every_explained_code_exists_and_stands_once(self):
        source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
        known = set(re.findall(r'"([a-z0-9_]+)"', source))
        known |= {reason for table in (WRONG_FORM, WRONG_CLAIMS, WRONG_KEY) for _token, reason in table.values()}

        # Some are made of a claim's name.
        unknown = {code for code in _explained_codes() if not {code, code.removesuffix("_malformed")} & known}

        assert unknown == set()
        assert len(_explained_codes()) == len(set(_explained_codes()))


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
