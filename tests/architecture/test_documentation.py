"""Each public name, setting, error code, option, argument, answer and event is documented, and each link leads on."""

import inspect
import re
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

import micromegas_jupyter
from micromegas_jupyter import access, auth, hub
from micromegas_jupyter.access import explain
from micromegas_jupyter.auth.flows.hub import NOT_UNDERSTOOD, REFUSALS, UNKNOWN_SIGN_IN
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.errors import MicromegasError, error_classes
from micromegas_jupyter.hub.callers import REFUSALS as SERVICE_REFUSALS
from tests.architecture.guide_text import DOCS, ROOT, dangling_links, read_page, table_rows
from tests.architecture.test_references import commands, magic_options
from tests.screenshots import ANIMATION, IMAGES, MAKERS, MAX_ANIMATION_BYTES

SOURCES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter").rglob("*.py")}
HUB_SOURCE, OTHER_SOURCE = (
    "\n".join(text for path, text in SOURCES.items() if (path.parent.name == "hub") is is_hub)
    for is_hub in (True, False)
)
PACKAGES = (micromegas_jupyter, auth, access, hub)
#: Options of other programs, in examples.
FOREIGN_OPTIONS = {"--help", "--ip", "--no-deps", "--require-hashes"}
# `nbf` is only read when it is there.
UNREACHABLE = {"not_before_missing"}


def command_line_options():
    return [
        (name, option)
        for name, command in commands(build_parser()).items()
        for parser in (command, *commands(command).values())
        for action in parser._actions
        for option in action.option_strings
        if option not in {"-h", "--help", "--version"}
    ]


@pytest.mark.parametrize("page", ["../README.md", *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])
def test_every_link_leads_somewhere(page):
    assert dangling_links(page) == []


@pytest.mark.parametrize(
    "page",
    [
        *(
            "operating.md",
            "lake.md",
            "limits.md",
            "server-settings.md",
            "monitoring.md",
            "query-execution.md",
            "remote-engine.md",
            "scaling.md",
        ),
        *("metrics.md", "audit.md", "ingest.md", "errors.md", "SECURITY.md", "magics.md"),
        "security-model.md",
    ],
)
def test_every_option_that_a_page_names_exists(page):
    known = magic_options() | FOREIGN_OPTIONS | {option for _command, option in command_line_options()}

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", read_page(page))) <= known


def test_every_picture_is_taken_by_a_test_and_shown_on_a_page():
    pages = [path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")]
    shown = {name for text in pages for name in re.findall(r"!\[[^\]]+\]\((?:\.\./)*images/([^)]+)\)", text)}
    tests = {maker: maker.split("::") for maker in MAKERS.values()}

    assert {path.name for path in IMAGES.iterdir()} == {ANIMATION, *(f"{name}.png" for name in MAKERS)} == shown
    assert (IMAGES / ANIMATION).stat().st_size <= MAX_ANIMATION_BYTES
    assert "python -m tests.screenshots\n" in read_page("contributing.md")
    for file, test in tests.values():
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
        assert file in read_page("contributing.md")


def reasons():
    written = re.findall(r'(?:TokenProblem|UnknownKey)\(\s*"([a-z0-9_]+)"|\breason="([a-z0-9_]+)"', OTHER_SOURCE)
    steps = {code for _, codes, _ in explain._STEPS for code in codes}
    return ({"".join(pair) for pair in written} | steps) - UNREACHABLE


NAMES = {
    "variables": (
        re.findall(r"\bMICROMEGAS_[A-Z_]+[A-Z]\b", OTHER_SOURCE + HUB_SOURCE),
        "client-settings.md server-settings.md limits.md",
        "`{}`",
    ),
    "public names": (
        (f"{part.__name__}.{name}" for part in PACKAGES for name in part.__all__ if not name.startswith("_")),
        "python.md",
        "`{}",
    ),
    "codes of sign-ins": (
        (code for code in error_classes() if code.startswith(("AUTH", "AVAIL", "CONF", "USE"))),
        "troubleshooting.md",
        "\n| {} |",
    ),
    "arguments of configure": (
        set(inspect.signature(hub.configure).parameters) - {"config"},
        "jupyterhub.md server-settings.md",
        "`{}`",
    ),
    "answers of the Hub's service": (SERVICE_REFUSALS, "jupyterhub.md", "`{}`"),
    "events of the Hub's audit": (
        map("".join, re.findall(r'audit\.write\(\s*"(\w+)"|event = "(?!refused)(\w+)"|reason="(\w+)"', HUB_SOURCE)),
        "jupyterhub.md",
        "`{}`",
    ),
}


@pytest.mark.parametrize(("names", "pages", "written"), NAMES.values(), ids=NAMES)
def test_every_name_is_documented(names, pages, written):
    text, found = "".join(map(read_page, pages.split())), sorted(set(names))

    assert found
    assert [name for name in found if written.format(name) not in text] == []


def test_every_code_is_explained():
    explained = {reason for row in table_rows(read_page("errors.md")) for reason in re.findall(r"`(\w+)`", row[0])}

    assert len(reasons()) > 50
    assert sorted(reasons() - explained) == []


def test_every_row_of_the_troubleshooting_page_is_of_a_code():
    rows = re.findall(r"^\| ([A-Z]+\d{3}) \|", read_page("troubleshooting.md"), re.MULTILINE)

    assert sorted(set(rows) - set(error_classes())) == []


def test_every_code_of_the_hubs_service_is_known_to_notebooks():
    codes = set(SERVICE_REFUSALS) - {"internal_error"}

    assert sorted(codes - set(REFUSALS) - NOT_UNDERSTOOD - {UNKNOWN_SIGN_IN}) == []


def test_every_error_class_has_a_code_of_its_own():
    def classes(base):
        return [base] + [found for child in base.__subclasses__() for found in classes(child)]

    codes = [found.code for found in classes(MicromegasError) if found.__module__ == "micromegas_jupyter.errors"]

    assert len(codes) == len(set(codes))


def test_every_error_has_a_cause_a_check_and_a_fix():
    for code, error in error_classes().items():
        paragraphs = inspect.cleandoc(error.__doc__).partition("\n\nArgs:")[0].split("\n\n")
        labels = [text.partition(": ")[0] for text in paragraphs[1:]]
        assert labels == ([] if paragraphs[0].startswith("Base class") else ["Check", "Fix"]), code


def test_every_status_is_explained_with_the_errors_that_have_it():
    text = read_page("errors.md").partition("\n## Statuses\n")[2].partition("\nSome statuses")[0]
    rows = {row[0].strip("`"): row[1:] for row in table_rows(text) if re.fullmatch(r"`[A-Z_]+`", row[0])}
    named = {status: set(re.findall(r"\[([A-Z]{3,5}\d{3})\]\(#", row[1])) for status, row in rows.items()}
    assert named.pop("OK") == set()
    expected = {"CANCELLED": set(), "NOT_FOUND": set()}
    for code, error in error_classes().items():
        expected.setdefault(error.grpc_code, set()).add(code)

    assert named == expected
    assert set(rows) == {*expected, "OK"} <= {status.name for status in grpc.StatusCode}
    assert {status for status, row in rows.items() if row[2] == "yes"} == {
        error.grpc_code for error in error_classes().values() if error.retryable
    }


def test_the_binder_page_names_each_file_and_there_are_no_others():
    named = {row[0].strip("`") for row in table_rows(read_page("binder.md")) if row[0].startswith("`binder/")}

    assert named == {f"binder/{path.name}" for path in (ROOT / "binder").iterdir()}


def test_the_binder_link_opens_the_notebook_that_is_there():
    (link,) = re.findall(r"^https://mybinder\.org/v2/\S+$", read_page("binder.md"), flags=re.MULTILINE)
    (address,) = parse_qs(urlsplit(link).query)["urlpath"]

    assert (ROOT / address.removeprefix("lab/tree/")).is_file()
