"""The runtime environment of this program, as far as it decides how a person can sign in."""

import importlib.util
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from micromegas_jupyter.core.system import process_variables

if TYPE_CHECKING:
    import webbrowser

# A gateway passes on to a kernel the variables that begin with KERNEL_ and no others. The first is set by this
# project's Jupyter server extension, the second by its JupyterHub service.
REDIRECT_VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"
HUB_VARIABLE = "KERNEL_MICROMEGAS_HUB"
# Set by JupyterHub for every server that it starts: the server's own credential at the Hub.
HUB_TOKEN_VARIABLE = "JUPYTERHUB_API_TOKEN"  # noqa: S105 - a variable's name, not a token
# They draw in the terminal that started them (`webbrowser` registers these where there is no display).
TEXT_BROWSERS = frozenset({"www-browser", "links", "elinks", "lynx", "w3m", "links2", "browsh"})
BROWSER_START_SECONDS = 5.0

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the choice of a flow depends on besides environment variables."""

    has_kernel: bool = False  # a Jupyter kernel runs this program
    allows_input: bool | None = None  # the kernel's front end lets a person answer; None when it has not said
    has_terminal: bool = False  # standard input or standard error is a terminal
    is_colab: bool = False  # `google.colab` can be imported
    has_browser: bool = False  # a browser with a window can be opened from here


def gather_facts(*, environ: Mapping[str, str] | None = None, shell: object = None) -> Facts:
    """Find out where this process runs; `shell` stands in for the running IPython shell."""
    kernel = getattr(_running_shell() if shell is None else shell, "kernel", None)
    if kernel is not None:
        return Facts(has_kernel=True, allows_input=_allows_input(kernel), is_colab=_is_colab())
    has_terminal = any(_is_terminal(stream) for stream in (sys.stdin, sys.stderr))
    return Facts(has_terminal=has_terminal, has_browser=has_graphical_browser(process_variables(environ)))


def is_below_hub(environ: Mapping[str, str]) -> bool:
    """Whether a Hub with the sign-in service started this program's server, and its token is here.

    A kernel behind a gateway knows of the service, but has no token for it.
    """
    return bool(environ.get(HUB_VARIABLE)) and bool(environ.get(HUB_TOKEN_VARIABLE))


def is_remote_session(environ: Mapping[str, str]) -> bool:
    """Whether the person sits at another machine and sees no window of this one."""
    return bool(environ.get("SSH_CONNECTION")) and not any(environ.get(name) for name in _DISPLAYS)


def has_graphical_browser(environ: Mapping[str, str]) -> bool:
    """Whether a browser with a window can be opened on the screen that the person sees."""
    if is_remote_session(environ):
        return False
    needs_display = sys.platform not in {"darwin", "win32"}
    if needs_display and not any(environ.get(name) for name in (*_DISPLAYS, "BROWSER")):
        return False
    controller = _browser_controller()
    return controller is not None and PurePath(str(getattr(controller, "name", ""))).name not in TEXT_BROWSERS


class GraphicalBrowser:
    """The first browser that `webbrowser` finds, if it opens a window.

    Unlike `webbrowser.open` it does not go on to text browsers, which would take over the terminal.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def open(self, url: str) -> bool:
        """Open `url` in a new tab; False when there is no such browser. Returns within a few seconds."""
        if not has_graphical_browser(self._environ):
            return False
        results: list[bool] = []
        opening = threading.Thread(target=lambda: results.append(_open(url)), name="micromegas-browser", daemon=True)
        opening.start()
        # A command of the person's own (BROWSER) may stay in the foreground as long as its window is open.
        opening.join(BROWSER_START_SECONDS)
        return results[0] if results else True


def _browser_controller() -> "webbrowser.BaseBrowser | None":
    import webbrowser  # most programs open none

    try:
        return webbrowser.get()
    except webbrowser.Error:
        return None


def _open(url: str) -> bool:
    import webbrowser

    controller = _browser_controller()
    try:
        return controller is not None and controller.open(url, new=2)
    except (webbrowser.Error, OSError):
        return False


def _running_shell() -> object:
    # A program that runs in IPython has loaded it; loading it here to find that out would cost a terminal too much.
    ipython = sys.modules.get("IPython.core.getipython")
    return None if ipython is None else ipython.get_ipython()


def _allows_input(kernel: object) -> bool | None:
    get_parent = getattr(kernel, "get_parent", None)
    request = get_parent("shell") if callable(get_parent) else None
    content = request.get("content") if isinstance(request, Mapping) else None
    # A front end with a person says so with each request; one that says nothing has none.
    return bool(content.get("allow_stdin", False)) if isinstance(content, Mapping) else None


def _is_colab() -> bool:
    try:
        return importlib.util.find_spec("google.colab") is not None
    except (ImportError, ValueError):
        return False


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # whatever a program put in its place
    except (AttributeError, OSError, ValueError):
        return False
