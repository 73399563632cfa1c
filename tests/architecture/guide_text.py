"""Reads the pages of the guides as their parts: tables, fenced blocks, headings, links."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Block(NamedTuple):
    """One fenced block; `title` is the file that it belongs into, `shown` what the next block says that it prints."""

    place: str
    language: str
    text: str
    title: str | None
    shown: str | None
    is_marked: bool


#: The comment before the fence of each block that no test runs.
MARK = "<!-- not-tested -->"
#: The languages whose blocks are executed in order, by tests/integration/test_guides.py.
EXECUTED = {"python", "sh"}
#: What other tests read or run, by language and page.
RUN_ELSEWHERE = {
    "tests/architecture/test_guides.py": {
        "json": "access.md api-keys.md providers.md sign-in.md service-accounts.md",
        "yaml": "providers.md service-accounts.md",
    },
    "tests/integration/browser/test_sql_page.py": {"js": "clients.md"},
    "tests/integration/clients/test_clients_guide.py": {"python": "clients.md"},
    "tests/integration/clients/test_grafana.py": {"sql": "grafana.md", "yaml": "grafana.md"},
    "tests/integration/lakehouse/test_data_model_page.py": {"sql": "audit.md data-model.md ingest.md sql.md"},
    "tests/integration/system/test_migration.py": {"json": "migration.md", "sh": "migration.md"},
    "tests/integration/testing_kit/test_examples.py": {"python": "testing.md"},
    "tests/integration/hub/guide.py": {"python": "jupyterhub.md"},
    "tests/unit/config/test_documentation.py": {
        "json": "client-settings.md server-settings.md",
        "toml": "server-settings.md",
    },
}
PAGES = ["../README.md", *sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))]

_SHOWN = re.compile(r"\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


def read_page(name):
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(*names):
    pages = {name: read_page(name) for name in names}
    return [
        Block(
            place=f"{name}:{text[: fence.start()].count(chr(10)) + 1}",
            language=fence[1],
            text=fence[3],
            title=fence[2],
            shown=shown[1] if (shown := _SHOWN.match(text, fence.end())) else None,
            is_marked=_is_marked(text[: fence.start()]),
        )
        for name, text in pages.items()
        for fence in _FENCE.finditer(text)
    ]


def _is_marked(before):
    return before.rstrip().endswith(MARK)


def is_run_elsewhere(page, language):
    return any(page in pages.get(language, "").split() for pages in RUN_ELSEWHERE.values())


def executed_blocks(page):
    """Return the blocks that are executed in order, with the files between them."""
    return [
        block for block in blocks(page) if not block.is_marked and (block.title or is_executed(page, block.language))
    ]


def is_executed(page, language):
    return language in EXECUTED and not is_run_elsewhere(page, language)


def table_rows(text):
    lines = [line.strip() for line in text.split("\n") if line.startswith("|")]
    return [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]


def anchors(text):
    headings = re.findall(r"^#{1,6} (.+)$", _FENCE.sub("", text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dangling_links(page):
    """Return the links of a page below docs, or at `../README.md`, whose file or heading is not there."""
    text = read_page(page)
    links = re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text))
    return [link for link in links if "://" not in link and not _leads_somewhere(page, text, link)]


def _leads_somewhere(page, text, link):
    target, _, anchor = link.partition("#")
    path = (DOCS / page).parent / target
    if not target:
        return anchor in anchors(text)
    return path.is_file() and (not anchor or anchor in anchors(path.read_text(encoding="utf-8")))
