"""The English of pages, notebooks, and code: unidiomatic patterns, sentence lengths, and the words of each page.

Counts may only fall: `english_baseline.json` has those that are left. `python -m tests.architecture.test_english` lists
what exceeds it, and lowers it to today's counts.
"""

import ast
import json
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

from tests.architecture.guide_text import PAGES, ROOT, read_page

BASELINE = Path(__file__).parent / "english_baseline.json"
MAX_WORDS = {"sentence": 30, "cell": 20}
#: Words of a page by its part of the navigation; pages listed in LONGER have their own budget.
BUDGETS = {"Tutorials": 1500, "Query": 1200, "Administer": 1200, "Reference": 3000, "Explanation": 2000}
LONGER: dict[str, int] = {
    "access.md": 1600,
    "clients.md": 1700,
    "errors.md": 3600,
    "ingest.md": 1700,
    "magics.md": 3600,
    "operating.md": 1500,
    "providers.md": 1900,
    "troubleshooting.md": 1400,
}
#: Written by a program, from sources that have budgets of their own or none.
GENERATED = {"cli.md"}
#: What an American engineer would not write, with what they would write instead.
PATTERNS = {
    "somebody, the person: a user": r"\b(?:some|no)body\b|\b(?:the|a|each) person\b",
    "answer: response, return": r"\banswer(?:s|ed|ing)?\b",
    "refuse: reject, deny": r"\brefus(?:ed?|ing|al)s?\b",
    "says what: specifies, reports": (
        r"\b(?:says?|said|tells?|told) (?:what|which|why|how|where|whether|who|when|so|of|that)\b"
    ),
    "at once, meanwhile: immediately": (
        r"\bat once\b|\bbeside\b|\banew\b|\bmeanwhile\b|\bfor good\b|\bfor want of\b|\bany ?more\b"
    ),
    "gives no: doesn't return": (
        r"\b(?:gives?|gave|holds?|takes?|accepts?|names?|knows?|wants?) (?:no|nothing|none) (?!longer|more)\w"
    ),
    "What is …: a noun": (
        r"(?:^|[.;:] )What (?!is new|happens|to do|if|you)[^?.;:,]{2,60}? (?:is|are|was|has|have|needs?"
        r"|takes?|fits?)\b(?![^.]*\?)"
    ),
    "Where there is no: if": r"(?:^|[.;:] )(?:[Oo]nly )?[Ww]here (?:no|nothing|there|only|an?|this)\b",
    "of its own: its own": r"\bof (?:its|their|your|his|our) own\b",
    "ends: expires, exits, stops": (
        r"\b(?:token|key|session|process|executor|program|kernel|connection|statement)s? (?:has |have )?end"
        r"(?:s|ed)?\b"
    ),
    "client of Flight SQL: Flight SQL client": (
        r"\b(?:clients?|tables?|columns?|quer(?:y|ies)|functions?|messages) of (?:Flight SQL|gRPC|SQL|HTTP"
        r"|Delta|Arrow|DataFusion|JupyterHub|pandas|Python)\b"
    ),
    "believes, wants, speaks for": (
        r"\b(?:believes?|wants|wishes) (?:a|an|the|it|its|no|to)\b|\bspeaks? for\b|\bknows? (?:no|nothing"
        r"|of)\b"
    ),
    "names a: specifies, contains": (
        r"\b(?:that|which|it|file|rule|message|error|must) names? (?:a|an|the|it|one|them|no)\b|\bnamed by\b"
        r"|\bName (?:one|a|the)\b"
    ),
    "stands, lies, stays: is": (
        r"\bstands? (?:in (?!for)|at|before|after|below|under)\b|\blies? (?:in|at|below|under|outside)\b"
        r"|\bstays? (?:at|with|as|where)\b"
    ),
    ", whose …; for whom": (
        r", (?:whose|of which|for which|at which|in which|to which|with which)\b|\b(?:for|to|of|by"
        r"|with) whom\b"
    ),
    "by itself: automatically": r"\b(?:by|of) (?:itself|themselves)\b",
    "is no X: isn't an X": r"(?<![Tt]here )\b(?:is|are|was|were) no (?!longer|more|matter|way|need|point)\w+",
    "whoever: anyone who": r"\bwho(?:m)?ever\b",
    ", else: otherwise": r"[,;] (?:or )?else\b",
    "sign in at: sign in to": (
        r"\bsign(?:ed|s|ing)?[ -]in at\b|\bat the (?:[Hh]ub|provider|server|engine|service|gateway|client)\b"
    ),
    "there is none": r"\b(?:is|are) (?-i:none)\b",  # not Python's None
    "as it is: unchanged": r"\bas (?:it|they) (?:is|are|stands?)(?: now)?(?=[.,;:)]|$)",
    "picture, texts: image, strings": r"\bpictures?\b|\bremarks?\b|\b(?:the|as|of|all) texts\b",
    "one each: per": r"\bone for each\b|\b(?:a|one) [\w-]+ each\b",
    "go on: continue": r"\b(?:go|goes|going) on\b",
}

#: A string that may be shown to a user: the beginning of a sentence, and neither SQL nor HTML.
SHOWN = re.compile(r"[A-Z].*\w+ \w+ .*\w[.…]?$")
CODE = re.compile(r"SELECT|FROM|[{}<>\n]")


def markdown_parts(text):
    """Yield the sentences of prose and of table cells, each with its kind, without code."""
    text = re.sub(r"^ *(```+).*?^ *\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "`x`", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |[#|>]))", text):
        if re.match(r"\s*(?:#|<|\|[\s:|-]+\|\s*$)", block):
            continue
        is_row = block.lstrip().startswith("|")
        for part in block.strip().strip("|").split("|") if is_row else [block]:
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z`*(])", " ".join(part.split())):
                yield "cell" if is_row else "sentence", sentence


def is_error_tree(path):
    """Whether the docstrings of a module's classes are shown to users."""
    return path.name == "errors.py" and path.parent.name == "micromegas_jupyter"


def code_texts(path):
    """Yield the messages, and the docstrings and comments of a module, each with its kind."""
    tree = ast.parse(path.read_bytes())
    texts = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    shown = {
        id(getattr(node.body[0], "value", None))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and is_error_tree(path)
    }
    yield from (("messages" if id(text) in shown else "code", text.value) for text in texts if text.value is not ...)
    documented = {id(text) for text in texts}
    strings = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    for node in strings:
        if id(node) not in documented and SHOWN.match(node.value) and not CODE.search(node.value):
            yield "messages", node.value
    with path.open("rb") as source:
        comments = [token.string for token in tokenize.tokenize(source.readline) if token.type == tokenize.COMMENT]
    yield from (("code", comment) for comment in comments)


def all_texts():
    for page in PAGES:
        kind = "README" if page == "../README.md" else "decisions" if page.startswith("decisions/") else "pages"
        yield from ((kind, part, text) for part, text in markdown_parts(read_page(page)))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                yield from (("notebooks", part, text) for part, text in markdown_parts("".join(cell["source"])))
    for path in sorted((ROOT / "micromegas_jupyter").rglob("*.py")):
        yield from ((kind, "text", text) for kind, text in code_texts(path))


def hits():
    """Yield the kind of text, the pattern, and the text of each hit."""
    compiled = [(name, re.compile(pattern, re.IGNORECASE)) for name, pattern in PATTERNS.items()]
    for kind, part, text in all_texts():
        yield from ((kind, name, text) for name, pattern in compiled if pattern.search(text))
        if len(text.split()) > MAX_WORDS.get(part, sys.maxsize):
            yield kind, f"a {part} of more than {MAX_WORDS[part]} words", text


def page_words():
    """Return the words of each page that exceeds its budget, and of all pages."""
    navigation = (ROOT / ".mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    words, part = {}, ""
    for line in navigation.splitlines():
        if section := re.fullmatch(r"  - (\w+):", line):
            part = section[1]
        elif page := re.fullmatch(r" +- (\S+\.md)", line):
            words[page[1]] = (len(read_page(page[1]).split()), LONGER.get(page[1], BUDGETS.get(part, sys.maxsize)))
    found = {page: count for page, (count, budget) in words.items() if count > budget and page not in GENERATED}
    return {**found, "all pages": sum(count for count, _ in words.values())}


def measure():
    counts = Counter(f"{kind}: {name}" for kind, name, _ in hits())
    return dict(sorted(counts.items())) | page_words()


@pytest.mark.parametrize("found", [measure()], ids=["counts"])
def test_counts_only_fall(found):
    allowed = json.loads(BASELINE.read_text(encoding="utf-8"))

    assert {name: count for name, count in found.items() if count > allowed.get(name, 0)} == {}


if __name__ == "__main__":
    known, now = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}, measure()
    for kind, name, text in hits():
        if now[f"{kind}: {name}"] > known.get(f"{kind}: {name}", 0):
            print(f"{kind}: {name}: {text[:160]}")
    lowered = {name: min(count, known.get(name, count)) for name, count in now.items()}
    BASELINE.write_text(json.dumps(lowered, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
