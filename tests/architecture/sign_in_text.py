"""Reads the guide to signing in, and the code that it is held against, as their parts."""

from __future__ import annotations

import re
import shlex
from functools import cache
from itertools import pairwise

from tests.architecture.guide_text import ROOT, Block, read_page, table_rows

PACKAGE = ROOT / "micromegas_jupyter"
PAGES = ("sign-in.md", "sign-in-providers.md", "service-accounts.md", "storing-secrets.md", "troubleshooting.md")
# Where the errors of a sign-in are made.


def in_one_line(page: str) -> str:
    return " ".join(read_page(page).split())


def everything() -> str:
    return "\n".join(read_page(name) for name in PAGES)


@cache
def source() -> str:
    """Return the package's code with texts that stand over several lines joined, and `…` for what is put in."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py")))
    return re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s+f?"', "", text))


def code_rows() -> dict[str, tuple[str, ...]]:
    rows = table_rows(read_page("troubleshooting.md"))
    return {row[0]: row for row in rows if re.fullmatch(r"[A-Z]+\d{3}", row[0])}


def variables(block: Block) -> dict[str, str]:
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


def commands(block: Block) -> list[str]:
    if block.language == "sh":
        lines = [line for line in block.text.split("\n") if line.startswith("micromegas ")]
        return [line.partition(" > ")[0] for line in lines]
    lines = [line.strip() for line in block.text.split("\n")]
    return [line.removeprefix("- run: ").partition(" > ")[0] for line in lines if line.startswith("- run: micromegas ")]
