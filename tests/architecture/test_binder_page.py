"""The page about Binder: the files that it names, the badge."""

import re
from urllib.parse import parse_qs, urlsplit

from tests.architecture.guide_text import ROOT, read_page, table_rows


def test_the_page_names_each_file_and_there_are_no_others():
    named = {row[0].strip("`") for row in table_rows(read_page("binder.md")) if row[0].startswith("`binder/")}

    assert named == {f"binder/{path.name}" for path in (ROOT / "binder").iterdir()}


def test_the_badge_opens_the_notebook_that_is_there():
    (link,) = re.findall(r"\]\((https://mybinder\.org/v2/[^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))

    (address,) = parse_qs(urlsplit(link).query)["urlpath"]

    assert (ROOT / address.removeprefix("lab/tree/")).is_file()
