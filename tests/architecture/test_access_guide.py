"""The administrator guide says what the validator does: codes, settings, commands, metrics, times."""

import re
import shlex

import pytest

from micromegas_jupyter.access import explain
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.access import parse_access_settings
from micromegas_jupyter.config.issuers import PRESETS
from micromegas_jupyter.engine.security import condition_problem
from micromegas_jupyter.telemetry.tables import TABLES
from tests.architecture.exercised_metrics import access_metrics
from tests.architecture.guide_text import GUIDE, ROOT, blocks, read_guide, read_page, table_rows

PACKAGE = ROOT / "micromegas_jupyter"
# `nbf` is only read when it is there.
UNREACHABLE = frozenset({"not_before_missing"})


def _explained_codes():
    cells = [row[0] for row in table_rows(read_page("access-reasons.md"))]
    return [found[1] for cell in cells if (found := re.fullmatch(r"`([a-z0-9_]+)`", cell))]


_CODE = re.compile(r'(?:TokenProblem|UnknownKey)\(\s*"([a-z0-9_]+)"|\breason="([a-z0-9_]+)"')


class TestReasonCodes:
    """Every code that the package writes out has one row, and every row is a code of the package or its tests."""

    def test_every_code_is_explained(self):
        paths = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "hub"]
        source = "\n".join(path.read_text(encoding="utf-8") for path in paths)
        written = {direct or named for direct, named in _CODE.findall(source)}
        step_reasons = {reason for _, reasons, _ in explain._STEPS for reason in reasons}

        assert len(written) > 50
        assert sorted((written | step_reasons) - UNREACHABLE - set(_explained_codes())) == []


def _configuration_files():
    return [block for block in blocks(*GUIDE) if block.language == "json"]


def _parsed(block):
    return parse_access_settings({"MICROMEGAS_ACCESS_CONFIG": "access.json"}, config_text=block.text)


def _exported_variables():
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
