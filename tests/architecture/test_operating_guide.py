"""The operator's guide names options, metrics and log sentences that there are, and its examples are well formed."""

import configparser
import json
import re

import pytest

from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.cli.serve_command import load_settings
from micromegas_jupyter.executors.scheduling import CHARGED, Cause, build_error
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.server.http_endpoint import NotReady
from tests.architecture.guide_text import blocks, read_page, table_rows
from tests.architecture.test_documentation import command_line_options

PAGES = ("operating.md", "metrics.md", "audit.md", "ingest.md", "statuses.md", "errors.md", "SECURITY.md")
GUIDE = read_page("operating.md")
#: Options of other programs, in examples.
FOREIGN_OPTIONS = {"--no-cache-dir", "--uid", "--create-home", "--help"}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_exists(page):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read_page(page)))

    assert named - FOREIGN_OPTIONS - {option for _command, option in command_line_options()} == set()


def test_every_reason_for_not_being_ready_is_explained():
    explained = _first_column(GUIDE.partition("The reasons of `/ready`:")[2].partition("\n## ")[0])

    assert explained == [reason.value for reason in NotReady]


def test_every_cause_for_which_a_statement_is_ended_is_explained_as_it_is():
    section = GUIDE.partition("### Statements that are ended")[2].partition("\n## ")[0]
    rows = {row[0].strip("`"): row for row in table_rows(section) if row[0].startswith("`")}

    assert set(rows) == {cause.value for cause in Cause}
    for cause in Cause:
        _, _, answer, is_charged = rows[cause.value]
        assert is_charged == ("yes" if cause in CHARGED else "no"), cause
        if cause is not Cause.DISCONNECTED:
            assert answer == f"`{_build_error(cause).grpc_code}`", cause


def _build_error(cause):
    options = WorkerOptions(lake=None, denials_file=None, spill_directory="")
    return build_error(cause, settings=PoolSettings(), options=options)


def _first_column(text):
    return [row[0].strip("`") for row in table_rows(text) if row[0].startswith("`")]


def test_the_start_of_the_service_is_understood():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names of settings keep their case
    (text,) = [block.text for block in blocks("operating.md") if block.language == "ini"]
    unit.read_string(text.replace("\\\n", " "))
    program, command, *options = unit["Service"]["ExecStart"].split()

    arguments = build_parser().parse_args([command, *options])

    assert program.endswith("/micromegas")
    assert int(unit["Service"]["TimeoutStopSec"]) >= load_settings(arguments).drain_timeout_seconds + 10


def test_the_container_starts_what_is_understood():
    (text,) = [block.text for block in blocks("operating.md") if block.language == "dockerfile"]
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    assert entry is not None
    program, *arguments = json.loads(entry[1])

    assert program == "micromegas"
    assert build_parser().parse_args(arguments).command == "serve"
