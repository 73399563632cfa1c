"""The person's browser, if it opens a window of its own; one that would take over the terminal does not count.

When to open it is `flow_choice`'s and `wiring`'s matter.
"""

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import PurePath

# They draw in the terminal that started them (`webbrowser` registers these where there is no display).
TEXT_BROWSERS = frozenset({"www-browser", "links", "elinks", "lynx", "w3m", "links2", "browsh"})
OPEN_WAIT_SECONDS = 5.0

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


class GraphicalBrowser:
    """The first browser that `webbrowser` finds, if it opens a window.

    Unlike `webbrowser.open` it does not go on to text browsers when that one fails.

    Args:
        environ: Stands in for the process environment.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def open(self, url: str) -> bool:
        """Open `url` in a new tab; False when there is no such browser. Returns within a few seconds."""
        if not has_graphical_browser(self._environ):
            return False
        answers: list[bool] = []
        opening = threading.Thread(target=lambda: answers.append(_open(url)), name="micromegas-browser", daemon=True)
        opening.start()
        # A command of the person's own (BROWSER) may stay in the foreground as long as its window is open.
        opening.join(OPEN_WAIT_SECONDS)
        return answers[0] if answers else True


def has_graphical_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser with a window can be opened from here, on the screen that the person sees."""
    if is_remote_session(environ):
        return False
    needs_display = sys.platform not in {"darwin", "win32"}
    if needs_display and not any(environ.get(name) for name in (*_DISPLAYS, "BROWSER")):
        return False
    controller = _controller()
    return controller is not None and not _is_text_browser(controller)


def is_remote_session(environ: Mapping[str, str]) -> bool:
    """Whether the person sits at another machine and sees no window of this one."""
    return bool(environ.get("SSH_CONNECTION")) and not any(environ.get(name) for name in _DISPLAYS)


def _controller() -> webbrowser.BaseBrowser | None:
    try:
        return webbrowser.get()
    except webbrowser.Error:
        return None


def _is_text_browser(controller: webbrowser.BaseBrowser) -> bool:
    return PurePath(str(getattr(controller, "name", ""))).name in TEXT_BROWSERS


def _open(url: str) -> bool:
    controller = _controller()
    try:
        return controller is not None and controller.open(url, new=2)
    except (webbrowser.Error, OSError):
        return False
