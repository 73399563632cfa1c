"""Which share of random mutants the tests kill: `python -m tests.benchmarks.mutants auth=auth,oidc access=access`.

Needs `pip install cosmic-ray coverage` and a commit: it works in a clone. Operators and seed are fixed, so a run can be
repeated. A mutant is tried with at most `MAX_TESTS` of the tests that run its line, spread over their files; if none
does, because importing the module runs it, with tests that run other lines of the module.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import coverage
import pytest
from cosmic_ray.ast import Visitor, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

SEED, COUNT, MAX_TESTS, MAX_SECONDS = 14, 100, 80, 150
TESTS = ("tests/unit", "tests/integration/access", "tests/integration/auth")
PLUGIN = "tests.benchmarks.mutants"
OPERATORS = [
    f"core/{name}"
    for name in (
        "AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
        "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer",
        "ZeroIterationForLoop", "ReplaceUnaryOperator_Delete_Not", "ReplaceComparisonOperator_Eq_NotEq",
        "ReplaceComparisonOperator_NotEq_Eq", "ReplaceComparisonOperator_Lt_LtE", "ReplaceComparisonOperator_LtE_Lt",
        "ReplaceComparisonOperator_Gt_GtE", "ReplaceComparisonOperator_GtE_Gt", "ReplaceComparisonOperator_Lt_Gt",
        "ReplaceComparisonOperator_Is_IsNot", "ReplaceComparisonOperator_IsNot_Is", "ReplaceBinaryOperator_Add_Sub",
        "ReplaceBinaryOperator_Sub_Add", "ReplaceBinaryOperator_Mul_Div",
    )
]  # fmt: skip


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let coverage note for each line which tests run it; this module is a plugin of the run that measures."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        return (yield)
    measuring.switch_context(item.nodeid)
    try:
        return (yield)
    finally:
        measuring.switch_context("")


class Counter(Visitor):
    """Counts where an operator applies."""

    def __init__(self, operator):
        self.operator, self.count = operator, 0

    def visit(self, node):
        self.count += len(list(self.operator.mutation_positions(node)))
        return node


def mutants(root, packages):
    """Return `COUNT` mutants: the file, its new text, the operator and the first line that differs."""
    candidates = []
    for path in sorted(file for name in packages for file in (root / "micromegas_jupyter" / name).rglob("*.py")):
        tree = get_ast(path.read_text())
        for name in OPERATORS:
            counter = Counter(get_operator(name)())
            counter.walk(tree)
            candidates += [(path, name, index) for index in range(counter.count)]
    random.Random(SEED).shuffle(candidates)
    found = []
    for path, name, index in candidates:
        before = path.read_text()
        after = mutate_code(before, get_operator(name)(), index)
        if after is not None and after != before:
            pairs = zip(before.split("\n"), after.split("\n"), strict=False)
            found.append((path, after, name, next(n for n, (a, b) in enumerate(pairs, 1) if a != b)))
        if len(found) == COUNT:
            break
    return found


def tests_of(data, path, line):
    by_line = data.contexts_by_lineno(str(path))
    near = next(
        (names for n in range(line, max(0, line - 9), -1) if (names := [c for c in by_line.get(n, ()) if c])),
        [c for names in by_line.values() for c in names if c],  # the line runs when the module is imported
    )
    by_file = defaultdict(list)
    for name in sorted({name.split("|")[0] for name in near}):
        by_file[name.split("::")[0]].append(name)
    chosen = []
    while by_file and len(chosen) < MAX_TESTS:
        for file in list(by_file):
            chosen.append(by_file[file].pop(0))
            if not by_file[file]:
                del by_file[file]
    return chosen[:MAX_TESTS]


def is_killed(root, path, text, tests):
    before = path.read_text()
    path.write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, timeout=MAX_SECONDS, check=False).returncode != 0
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(before)


def main():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", ".", root], check=True)
        os.environ["PYTHONPATH"], os.environ["PYTHONDONTWRITEBYTECODE"] = str(root), "1"
        measured = Path(folder) / "coverage"
        words = f"coverage run --data-file={measured} --source=micromegas_jupyter -m pytest -q -n 0 -p {PLUGIN}"
        subprocess.run([sys.executable, "-m", *words.split(), *TESTS], cwd=root, check=False)
        data = coverage.CoverageData(str(measured))
        data.read()
        for group in sys.argv[1:]:
            name, _, packages = group.partition("=")
            killed = 0
            for path, text, operator, line in mutants(root, packages.split(",")):
                tests = tests_of(data, path, line)
                outcome = bool(tests) and is_killed(root, path, text, tests)
                killed += outcome
                print(path.relative_to(root), line, operator, "killed" if outcome else "survived", flush=True)
            print(f"{name}: {killed} of {COUNT} killed", flush=True)


if __name__ == "__main__":
    main()
