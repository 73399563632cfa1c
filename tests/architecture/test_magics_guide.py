"""The guide to the magics: a section for each that the extension registers, with its options as help writes them."""

import re

from tests.architecture.guide_text import read_page
from tests.architecture.registered_magics import registered_magics

# A line of the list of options: one or more of them, then what they mean.
OPTION_LINE = re.compile(r"^- ((?:`[^`]+`, )*`[^`]+`) \S", re.MULTILINE)


def sections():
    """Return each section by the names of magics in its heading."""
    parts = re.split(r"^## ", read_page("magics.md"), flags=re.MULTILINE)[1:]
    return {frozenset(re.findall(r"`%{1,2}(\w+)`", part.partition("\n")[0])): part for part in parts}


def section_of(names):
    (found,) = [text for named, text in sections().items() if named & set(names)]
    return found


def test_every_section_that_names_a_magic_names_one_that_is_registered():
    assert set().union(*sections()) <= {name for names in registered_magics() for name in names}


def test_the_one_section_of_a_magic_lists_its_options_as_help_writes_them_and_no_other():
    listed = {
        names: sorted(
            option for line in OPTION_LINE.findall(section_of(names)) for option in line.strip("`").split("`, `")
        )
        for names in registered_magics()
    }

    assert listed == {names: sorted(options) for names, options in registered_magics().items()}
