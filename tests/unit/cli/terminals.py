"""Streams that say of themselves what a terminal would."""

import io


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self):
        return True


class LatinTerminal(Terminal):
    """A terminal without block characters."""

    encoding = "iso-8859-1"


CAPABLE = {"TERM": "xterm-256color"}
