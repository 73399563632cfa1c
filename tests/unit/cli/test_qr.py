"""What a terminal can show."""

import io

import pytest

from micromegas_jupyter.cli.sign_in_terminal import can_show_qr, is_capable_terminal
from tests.unit.cli.terminals import CAPABLE, LatinTerminal, Terminal


def test_a_terminal_with_colours_and_block_characters_can_show_it():
    assert can_show_qr(Terminal(), CAPABLE)


@pytest.mark.parametrize(
    ("stream", "environ"),
    [
        (io.StringIO(), CAPABLE),
        (LatinTerminal(), CAPABLE),
        (Terminal(), {**CAPABLE, "NO_COLOR": "1"}),
        (Terminal(), {"TERM": "dumb"}),
        (Terminal(), {}),
    ],
)
def test_elsewhere_it_is_left_out(stream, environ):
    assert not can_show_qr(stream, environ)


def test_a_terminal_without_colours_can_still_rewrite_a_line():
    assert is_capable_terminal(Terminal(), {**CAPABLE, "NO_COLOR": "1"})
