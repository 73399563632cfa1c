"""Where a program runs, as far as it decides how a person can sign in there.

`gather_facts` looks at the process; `recognise` decides from what it found, and touches nothing. Which way to sign
in follows is `flow_choice`'s job.
"""

import enum
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from micromegas_jupyter.auth.graphical_browser import has_graphical_browser, is_remote_session
from micromegas_jupyter.auth.hub_variables import HUB_VARIABLE, is_below_hub
from micromegas_jupyter.core.system import process_variables

# Set by this project's Jupyter server extension. A gateway passes on to a kernel what begins with KERNEL_ and nothing
# else.
REDIRECT_VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"

_REMOTE_EDITOR_VARIABLES = ("CODESPACES", "REMOTE_CONTAINERS")
_NOT_SET = frozenset({"", "0", "false"})


class Surroundings(enum.StrEnum):
    """Where a program runs; each value is its name for people."""

    JUPYTER_WITH_REDIRECT = "Jupyter with the server extension"
    HUB_WITH_SERVICE = "JupyterHub with the sign-in service"
    HUB = "JupyterHub"
    HUB_TERMINAL = "a terminal on a JupyterHub with the sign-in service"
    COLAB = "Colab"
    VSCODE_REMOTE = "VS Code on a remote machine"
    VSCODE = "VS Code"
    REMOTE_JUPYTER = "Jupyter over SSH"
    JUPYTER = "Jupyter on this machine"
    TERMINAL = "a terminal with a browser"
    TERMINAL_WITHOUT_BROWSER = "a terminal without a browser"
    REMOTE_TERMINAL = "a terminal over SSH"
    NO_TERMINAL = "a program without a terminal"
    UNATTENDED = "a notebook that runs by itself"


# Where the sign-in service of a JupyterHub may be at hand; in the last two nobody else can sign in.
MAY_HAVE_HUB_SERVICE = frozenset(
    {Surroundings.HUB_WITH_SERVICE, Surroundings.HUB_TERMINAL, Surroundings.NO_TERMINAL, Surroundings.UNATTENDED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `recognise` needs besides the environment.

    Attributes:
        has_kernel: Whether a Jupyter kernel runs this program.
        allows_input: Whether the kernel's front end lets a person answer; None when it has not said.
        has_terminal: Whether standard input or standard error is a terminal.
        is_colab: Whether `google.colab` can be imported.
        has_browser: Whether a browser with windows of its own can be opened from here.
    """

    has_kernel: bool = False
    allows_input: bool | None = None
    has_terminal: bool = False
    is_colab: bool = False
    has_browser: bool = False


def gather_facts(*, environ: Mapping[str, str] | None = None, shell: object = None) -> Facts:
    """Look where this process runs.

    Args:
        environ: Stands in for the process environment.
        shell: The IPython shell; the process's own, if there is one, when None.
    """
    environ = process_variables(environ)
    kernel = getattr(_running_shell() if shell is None else shell, "kernel", None)
    if kernel is not None:
        return Facts(has_kernel=True, allows_input=_allows_input(kernel), is_colab=_is_colab())
    return Facts(has_terminal=_has_terminal(), has_browser=has_graphical_browser(environ))


def recognise(environ: Mapping[str, str], facts: Facts) -> Surroundings:
    """Return where a program with this environment and these facts runs."""
    if facts.has_kernel:
        return _recognise_notebook(environ, facts)
    if environ.get("CI", "").lower() not in _NOT_SET or not facts.has_terminal:
        return Surroundings.NO_TERMINAL
    if is_below_hub(environ):
        return Surroundings.HUB_TERMINAL
    if is_remote_session(environ):
        return Surroundings.REMOTE_TERMINAL
    return Surroundings.TERMINAL if facts.has_browser else Surroundings.TERMINAL_WITHOUT_BROWSER


def _recognise_notebook(environ: Mapping[str, str], facts: Facts) -> Surroundings:
    # nbclient, nbconvert and papermill say that nobody can answer (Jupyter messaging, `execute_request`).
    is_remote = is_remote_session(environ)
    rows = (
        (facts.allows_input is False, Surroundings.UNATTENDED),
        (bool(environ.get(HUB_VARIABLE)), Surroundings.HUB_WITH_SERVICE),
        # The variable is the word of the server's extension, which on a Hub gives it only where an administrator said
        # so, and takes away what the server inherited otherwise (`relay.extension`).
        (bool(environ.get(REDIRECT_VARIABLE)), Surroundings.JUPYTER_WITH_REDIRECT),
        (_has_prefix(environ, "JUPYTERHUB_"), Surroundings.HUB),
        (facts.is_colab, Surroundings.COLAB),
        (
            _has_prefix(environ, "VSCODE_") and (is_remote or any(map(environ.get, _REMOTE_EDITOR_VARIABLES))),
            Surroundings.VSCODE_REMOTE,
        ),
        (is_remote, Surroundings.REMOTE_JUPYTER),
        (_has_prefix(environ, "VSCODE_"), Surroundings.VSCODE),
    )
    return next((surroundings for holds, surroundings in rows if holds), Surroundings.JUPYTER)


def _has_prefix(environ: Mapping[str, str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in environ)


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


def _has_terminal() -> bool:
    return any(_is_terminal(stream) for stream in (sys.stdin, sys.stderr))


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # whatever a program put in its place
    except (AttributeError, OSError, ValueError):
        return False
