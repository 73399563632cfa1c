"""The guide to the magics: a section for each that the extension registers, with its options as help writes them."""

import re

import pytest

from tests.architecture.guide_text import read_page
from tests.architecture.registered_magics import registered_magics
from tests.architecture.test_documentation import command_line_options

# A line of the list of options: one or more of them, then what they mean.
OPTION_LINE = re.compile(r"^- ((?:`[^`]+`, )*`[^`]+`) \S", re.MULTILINE)


@pytest.fixture(scope="module")
def magics():
    return registered_magics()


def sections():
    parts = re.split(r"^## ", read_page("magics.md"), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


def names_in(heading):
    return set(re.findall(r"`%{1,2}(\w+)`", heading))


def listed_options(section):
    return [option for line in OPTION_LINE.findall(section) for option in line.strip("`").split("`, `")]


def section_of(magic):
    (found,) = [text for heading, text in sections().items() if names_in(heading) & set(magic.names)]
    return found


def test_every_magic_has_one_section(magics):
    headings = [names_in(heading) for heading in sections()]

    counts = {magic.names: sum(bool(names & set(magic.names)) for names in headings) for magic in magics}

    assert counts == dict.fromkeys(counts, 1)


def test_every_section_that_names_a_magic_names_one_that_is_registered(magics):
    registered = {name for magic in magics for name in magic.names}

    assert set().union(*map(names_in, sections())) <= registered


def test_a_section_lists_the_options_of_its_magic_as_help_writes_them_and_no_other(
    magics,
):
    listed = {magic.names: sorted(listed_options(section_of(magic))) for magic in magics}

    assert listed == {magic.names: sorted(magic.options) for magic in magics}


def test_every_option_that_the_guide_names_is_one_of_a_magic_or_a_command(magics):
    known = {option.split()[0] for magic in magics for option in magic.options}
    known |= {option for _command, option in command_line_options()}

    assert set(re.findall(r"`(--[a-z][a-z-]*)", read_page("magics.md"))) <= known
