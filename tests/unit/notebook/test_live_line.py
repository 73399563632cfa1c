import io
from threading import Event

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.notebook.results import progress
from micromegas_jupyter.notebook.results.progress import DisplayLine, LineTicker, TerminalLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Published:
    """Stands where IPython's display publisher stands."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bool]] = []

    def publish(self, data, metadata=None, *, update=False, **_):
        self.calls.append((data, update))


@pytest.fixture
def published(bare_shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> Published:
    stand_in = Published()
    monkeypatch.setattr(InteractiveShell, "_instance", bare_shell)
    monkeypatch.setattr(bare_shell, "display_pub", stand_in, raising=False)
    return stand_in


class Recorded:
    is_shown = False
    outlives_cell = False

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.rewritten_twice = Event()

    def rewrite(self, text: str, *, address: str = "") -> None:
        self.texts.append(text)
        if len(self.texts) == 2:
            self.rewritten_twice.set()

    def finish(self, text: str) -> None:
        raise AssertionError("the ticker finishes no line")

    clear = None


def test_a_terminal_line_is_erased_before_it_is_written_again() -> None:
    terminal = Terminal()
    line = TerminalLine(terminal)

    line.rewrite("one")
    line.finish("two")

    assert terminal.getvalue() == "\r\x1b[2Kone\r\x1b[2Ktwo\n"
    assert line.is_shown


def test_a_file_gets_only_the_line_that_stays() -> None:
    file = io.StringIO()
    line = TerminalLine(file)

    line.rewrite("one")
    line.clear()
    line.finish("two")

    assert file.getvalue() == "two\n"


def test_a_cleared_terminal_line_is_gone() -> None:
    terminal = Terminal()
    line = TerminalLine(terminal)

    line.clear()
    line.rewrite("one")
    line.clear()

    assert terminal.getvalue() == "\r\x1b[2Kone\r\x1b[2K"


def test_a_display_is_made_once_and_then_updated_as_text_and_escaped_html(published: Published) -> None:
    line = DisplayLine()

    line.clear()
    line.rewrite("<1>")
    line.finish("<2>")
    line.clear()

    (first, first_updates), (second, second_updates), (third, _) = published.calls
    assert (first["text/plain"], first_updates) == ("<1>", False)
    assert (second["text/plain"], second_updates) == ("<2>", True)
    assert "&lt;2&gt;" in second["text/html"]
    assert third == {"text/plain": "", "text/html": ""}


def test_an_address_in_the_line_can_be_followed(published: Published) -> None:
    DisplayLine().rewrite("<1> open http://127.0.0.1:4/x?a=1&b=2 now", address="http://127.0.0.1:4/x?a=1&b=2")

    ((bundle, _),) = published.calls
    assert bundle["text/plain"] == "<1> open http://127.0.0.1:4/x?a=1&b=2 now"
    assert (
        '&lt;1&gt; open <a href="http://127.0.0.1:4/x?a=1&amp;b=2" target="_blank" rel="noopener noreferrer">'
        "http://127.0.0.1:4/x?a=1&amp;b=2</a> now" in bundle["text/html"]
    )


def test_a_ticker_rewrites_until_its_block_ends() -> None:
    line = Recorded()

    with LineTicker(line, lambda: "working", pause_seconds=0.001):
        assert line.rewritten_twice.wait(30)
    count = len(line.texts)

    assert set(line.texts) == {"working"}
    assert len(line.texts) == count


def test_a_block_that_is_over_at_once_shows_nothing() -> None:
    line = Recorded()

    with LineTicker(line, lambda: "working", pause_seconds=60):
        pass

    assert line.texts == []


def test_a_line_is_rewritten_at_most_four_times_a_second() -> None:
    assert progress.REWRITE_SECONDS >= 0.25
