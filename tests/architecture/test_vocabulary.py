"""The package's shape: no identifier of the old private vocabulary, no overfull folder or file."""

import ast
import re
from collections import Counter
from functools import cache

import pytest

from tests.architecture.guide_text import ROOT
from tests.architecture.test_documentation import command_line_options

PACKAGE = ROOT / "micromegas_jupyter"
MAX_MODULES = 15
MAX_LINES = 900
# Words that nobody could search for, and the term that replaces each. None may be a part of a name of a module,
# class, function, parameter or option.
FORBIDDEN = (
    "apart", "ask", "asked", "assembly", "blame", "building", "contracts", "daily_turns", "deciding", "desk", "figure",
    "figures", "finest", "give_back", "given", "giver", "harmless", "keeper", "kept", "known_person", "least",
    "leftover", "leftovers", "longest", "moment", "moments", "most", "place", "places", "real_parts", "renewal_turn",
    "restraint", "restraints", "room", "rooms", "seal", "seals", "seam", "seams", "spares", "steady", "surroundings",
    "tell", "ticking", "timely", "told", "turn", "turns", "way", "ways", "whom", "wish", "wishes", "words",
)  # fmt: skip
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


def words_of(name):
    """Return a name's parts in lower case with an underscore around each: `LoginRequired` is `_login_required_`."""
    return f"_{'_'.join(part.lower() for part in _PART.findall(name))}_"


@cache
def names():
    """Return every name that the package gives a module, class, function, parameter or constant, and where."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        found.setdefault(path.stem, place)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.setdefault(name, f"{place}:{node.lineno}")
                case ast.arg(arg=name):
                    found.setdefault(name, f"{place}:{node.lineno}")
                case ast.Name(id=name, ctx=ast.Store()) if name.isupper():
                    found.setdefault(name, f"{place}:{node.lineno}")
    return found | {option: f"option of {command}" for command, option in command_line_options()}


@pytest.mark.parametrize("word", FORBIDDEN)
def test_no_name_is_of_the_old_vocabulary(word):
    assert {name: place for name, place in names().items() if f"_{word}_" in words_of(name)} == {}


def test_no_folder_and_no_module_is_larger_than_one_takes_in():
    lengths = {path: path.read_text(encoding="utf-8").count("\n") for path in PACKAGE.rglob("*.py")}
    counts = Counter(path.parent for path in lengths)

    assert {str(folder): count for folder, count in counts.items() if count > MAX_MODULES} == {}
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}
