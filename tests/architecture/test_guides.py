"""What somebody copies out of the guides is what the programs read; their tables are the code's tables."""

import re
import shlex
from itertools import pairwise

import pytest

from micromegas_jupyter.auth.flows.base import FLOW_TABLE
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.config.access import parse_access_settings
from micromegas_jupyter.config.client import CLIENT_PRESETS, Bearer, Flow, WorkloadPlatform, parse_client_settings
from micromegas_jupyter.config.issuers import PRESETS
from micromegas_jupyter.core.text import decode_strict_json
from micromegas_jupyter.engine.security import condition_problem
from micromegas_jupyter.executors.scheduling import CHARGED, Cause, build_error
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server.monitoring import NotReady
from micromegas_jupyter.telemetry.tables import TABLES
from tests.architecture.guide_text import (
    PAGES,
    ROOT,
    RUN_ELSEWHERE,
    blocks,
    is_executed,
    is_run_elsewhere,
    read_page,
    table_rows,
)
from tests.architecture.test_documentation import command_line_options

PROVIDERS = "providers.md"  # has both halves: a file for the server, and a profile for users
ACCESS = blocks("access.md", "api-keys.md", PROVIDERS)
SIGN_IN_PAGES = (
    "sign-in.md",
    "how-sign-in-works.md",
    PROVIDERS,
    "service-accounts.md",
    "troubleshooting.md",
)
SIGN_IN = blocks(*SIGN_IN_PAGES)
CONFIGURATIONS = [
    block for block in ACCESS if block.language == "json" and "profiles" not in decode_strict_json(block.text)
]
PROFILES = [
    block
    for block in SIGN_IN
    if block.language == "json" and block.place not in {found.place for found in CONFIGURATIONS}
]


def exported(lines):
    words = [word for line in lines if line.startswith("export ") for word in shlex.split(line)[1:]]
    return dict(word.split("=", 1) for word in words)


def variables(block):
    lines = [line.strip() for line in block.text.split("\n")]
    if block.language == "sh":
        return exported(lines)
    listed = {
        name.removeprefix("- name: "): value.removeprefix("value: ")
        for name, value in pairwise(lines)
        if name.startswith("- name: MICROMEGAS_")
    }
    return listed | dict(line.split(": ", 1) for line in lines if line.startswith("MICROMEGAS_"))


def commands():
    """Yield each command line, as a shell or the step of a workflow runs it."""
    for block in (*ACCESS, *SIGN_IN, *blocks("grafana.md", "migration.md")):
        if block.language in {"sh", "yaml"}:
            lines = [line.strip().removeprefix("- run: ") for line in block.text.split("\n")]
            yield from (line.partition(" > ")[0] for line in lines if line.startswith("micromegas "))


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_by_a_test_or_says_that_it_is_not(page):
    assert [block.place for block in blocks(page) if not (block.is_marked or _is_run(page, block))] == []


def _is_run(page, block):
    """A block of `text` has nothing to run: it is what a program shows, or a drawing."""
    if block.language == "text":
        return not re.search(r"^\$ ", block.text, flags=re.MULTILINE)
    if is_run_elsewhere(page, block.language):  # those tests run this project's commands, no other one's
        return block.language != "sh" or "micromegas " in block.text
    return block.title or is_executed(page, block.language)


@pytest.mark.parametrize("path", RUN_ELSEWHERE)
def test_what_another_test_runs_is_in_a_page_that_it_reads(path):
    source = (ROOT / path).read_text(encoding="utf-8")

    for language, pages in RUN_ELSEWHERE[path].items():
        for page in pages.split():
            assert page in source
            assert any(block.language == language and not block.is_marked for block in blocks(page)), page


@pytest.mark.parametrize("line", dict.fromkeys(commands()))
def test_every_command_is_one(line):
    words = shlex.split(line, comments=True)

    assert build_parser().parse_args(words[1:]).command == words[1]


def test_every_option_that_the_guide_to_signing_in_names_is_one_of_its_command():
    text = "\n".join(map(read_page, SIGN_IN_PAGES))
    named = set(re.findall(r"`micromegas (\w+)[^`]*?(--[a-z-]+)", text))

    assert named
    assert sorted(named - set(command_line_options())) == []


@pytest.mark.parametrize(
    ("found", "preset"),
    [
        *((CONFIGURATIONS, name) for name in PRESETS),
        *((PROFILES, name) for name in CLIENT_PRESETS),
    ],
)
def test_every_preset_has_a_section_with_a_configuration_that_uses_it(found, preset):
    sections = re.split(r"^## ", read_page(PROVIDERS), flags=re.MULTILINE)

    (section,) = [section for section in sections if section.split("\n")[0].endswith(f"(`{preset}`)")]

    assert any(block.text in section and f'"preset": "{preset}"' in block.text for block in found)


def _parsed(block):
    return parse_access_settings({"MICROMEGAS_ACCESS_CONFIG": "access.json"}, config_text=block.text)


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_every_block_of_json_is_a_configuration_file_that_is_accepted(block):
    settings = _parsed(block)

    assert settings.oidc is not None or settings.api_keys


def test_every_variable_of_access_that_is_exported_is_accepted():
    environ = exported(line for block in ACCESS if block.language == "sh" for line in block.text.split("\n"))
    environ.pop("MICROMEGAS_ACCESS_CONFIG", None)

    settings = parse_access_settings(environ)

    assert settings.oidc is not None
    assert settings.admins


def test_every_condition_of_a_role_fits_its_table():
    schemas = {table.name: table.schema for table in TABLES}
    found = [
        (table, condition)
        for block in CONFIGURATIONS
        for role in (_parsed(block).roles or {}).values()
        for table, condition in role.tables.items()
        if condition is not None
    ]

    assert found
    assert [(table, text) for table, text in found if condition_problem(text, schemas[table]) is not None] == []


@pytest.mark.parametrize("block", PROFILES, ids=lambda block: block.place)
def test_every_profile_can_be_used(block):
    names = list(decode_strict_json(block.text)["profiles"])

    settings = [parse_client_settings({}, config_text=block.text, profile=name) for name in names]

    assert settings
    assert [each.profile for each in settings if each.issuer is None or each.client_id is None] == []


@pytest.mark.parametrize("name", sorted(CLIENT_PRESETS))
def test_every_profile_sends_what_the_servers_of_the_other_guide_accept(name):
    block = next(block for block in PROFILES if f'"preset": "{name}"' in block.text)

    settings = parse_client_settings({}, config_text=block.text)

    assert (settings.preset, settings.bearer) == (name, Bearer.ID_TOKEN)


@pytest.mark.parametrize(
    "block",
    [block for block in SIGN_IN if block.language in {"sh", "yaml"} and "MICROMEGAS_" in block.text],
    ids=lambda block: block.place,
)
def test_every_block_of_variables_can_be_used(block):
    environ = variables(block)

    assert environ
    assert parse_client_settings(environ).origins


def test_every_row_of_the_choice_of_a_flow_stands_in_the_page():
    expected = [
        (row.environment.value, ", ".join(f"`{flow}`" for flow in row.flows) or "none", row.reason)
        for row in FLOW_TABLE
    ]
    names = {row.environment.value for row in FLOW_TABLE}

    assert [row for row in table_rows(read_page("how-sign-in-works.md")) if row[0] in names] == expected


def test_every_flow_and_platform_is_explained():
    section = read_page("sign-in.md").split("\n## The flows\n")[1].split("\n## ")[0]
    set_to = re.findall(r"MICROMEGAS_OIDC_WORKLOAD(?:: |=|\s+value: )([\w-]+)\n", read_page("service-accounts.md"))

    assert [flow for flow in Flow if f"`{flow}`" not in section] == []
    assert set(set_to) >= {platform.value for platform in WorkloadPlatform}


def test_every_reason_for_not_being_ready_is_explained():
    section = read_page("monitoring.md").partition("can return the following reasons:")[2].partition("\n## ")[0]

    assert [row[0].strip("`") for row in table_rows(section) if row[0].startswith("`")] == [
        reason.value for reason in NotReady
    ]


def test_every_cause_for_which_a_statement_is_ended_is_explained_as_it_is():
    section = read_page("limits.md").partition("## Statements that the server stops")[2].partition("\n## ")[0]
    rows = {row[0].strip("`"): row for row in table_rows(section) if row[0].startswith("`")}
    options = WorkerOptions(lake=None, denials_file=None, spill_directory="")

    assert set(rows) == {cause.value for cause in Cause}
    for cause in Cause:
        _, _, answer, is_charged = rows[cause.value]
        assert is_charged == ("yes" if cause in CHARGED else "no"), cause
        if cause is not Cause.DISCONNECTED:
            error = build_error(cause, settings=PoolSettings(), options=options)
            assert answer == f"`{error.grpc_code}`", cause


def test_the_site_has_each_page_under_its_heading():
    text = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r"^ +- (\S+\.md)$", text, flags=re.MULTILINE))  # without a title, the heading is used

    assert {path.name for path in (ROOT / "docs").glob("*.md")} == {page for page in pages if "/" not in page}


def test_no_cell_of_a_table_is_a_paragraph():
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    words = {(page, cell): len(cell.split()) for page in pages for row in table_rows(read_page(page)) for cell in row}

    assert {place: count for place, count in words.items() if count > 60} == {}
