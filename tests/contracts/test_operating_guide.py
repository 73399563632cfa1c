"""The operator's guide names options, metrics and log sentences that there are, and its examples are well formed."""

from __future__ import annotations

import configparser
import json
import re

import pytest

from micromegas_jupyter.cli.main import build_parser
from tests.contracts.guide_text import ROOT, blocks, dangling_links, read_page
from tests.contracts.test_documentation import command_line_options

PAGES = ("operating.md", "statuses.md")
GUIDE = read_page("operating.md")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter").rglob("*.py"))
#: Options of other programs, in examples.
FOREIGN_OPTIONS = {"--no-cache-dir", "--uid", "--create-home", "--help"}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    assert dangling_links(page) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_option_exists(page: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read_page(page)))

    assert named - FOREIGN_OPTIONS - {option for _command, option in command_line_options()} == set()


def test_every_sentence_of_the_log_is_one_that_is_logged() -> None:
    said = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+\.)\*(?!\*)", GUIDE))

    assert {sentence for sentence in said if f'"{sentence}"' not in SOURCE} == set()
    assert len(said) >= 5


def test_the_start_of_the_service_is_understood() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names of settings keep their case
    (text,) = [block.text for block in blocks("operating.md") if block.language == "ini"]
    unit.read_string(text.replace("\\\n", " "))
    program, command, *options = unit["Service"]["ExecStart"].split()

    arguments = build_parser().parse_args([command, *options])

    assert program.endswith("/micromegas")
    assert int(unit["Service"]["TimeoutStopSec"]) >= arguments.drain_seconds + 10


def test_the_container_starts_what_is_understood() -> None:
    (text,) = [block.text for block in blocks("operating.md") if block.language == "dockerfile"]
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)
    assert entry is not None
    program, *arguments = json.loads(entry[1])

    assert program == "micromegas"
    assert build_parser().parse_args(arguments).command == "serve"


def test_every_panel_that_the_guide_sends_somebody_to_is_on_the_dashboard() -> None:
    board = json.loads((ROOT / "docs" / "operating" / "dashboard.json").read_text(encoding="utf-8"))
    titles = {panel["title"] for panel in board["panels"]}
    named = set(re.findall(r"\*((?:Queries|Waiting|Limits|Memory)[^*.]*)\*", GUIDE))

    assert {name for name in named if not any(title.startswith(name) for title in titles)} == set()
    assert named
