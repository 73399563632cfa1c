"""How a sign-in flow is chosen, and what all flows share: the prompt, the wait, the code grant, and the pages."""

from __future__ import annotations

import base64
import enum
import hashlib
import importlib.util
import io
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from html import escape
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO, TypeVar

from micromegas_jupyter.auth.tokens.store import LoginKey, TokenStore
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer, Flow
from micromegas_jupyter.core.system import Secret, process_variables
from micromegas_jupyter.core.text import has_color
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved, UsageError
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    TokenSet,
    build_authorization_request,
    complete_scope,
    is_callback_of,
    parse_callback,
)

if TYPE_CHECKING:
    import webbrowser

    from micromegas_jupyter.auth.provider_connection import ProviderConnection
    from micromegas_jupyter.oidc.authorization import ProviderMetadata

# The flows that every program supports. The redirect flow and the Hub's token need support from a server.
BASIC_FLOWS = frozenset({Flow.BROWSER, Flow.DEVICE, Flow.PASTE})
ARGUMENT = "argument"
REMEMBERED = "remembered"
TABLE = "environment"
MAX_PASTE_TRIES = 5
PASTE_PROMPT = "Paste the address here (it is not shown): "

UNATTENDED_REMEDY = (
    "Run `micromegas login` in a terminal on this machine first, or give the program its own credentials with "
    "MICROMEGAS_OIDC_CLIENT_SECRET, MICROMEGAS_OIDC_PRIVATE_KEY_FILE, or MICROMEGAS_OIDC_WORKLOAD."
)
_NOT_SET = frozenset({"", "0", "false"})


class RuntimeEnvironment(enum.StrEnum):
    """The runtime environment of a program; each value is its display name."""

    UNATTENDED = "an unattended notebook"
    HUB_WITH_SERVICE = "JupyterHub with the sign-in service"
    JUPYTER_WITH_REDIRECT = "Jupyter with the server extension"
    HUB = "JupyterHub"
    COLAB = "Colab"
    VSCODE_REMOTE = "VS Code on a remote machine"
    REMOTE_JUPYTER = "Jupyter over SSH"
    VSCODE = "VS Code"
    JUPYTER = "Jupyter on this machine"
    NO_TERMINAL = "a program without a terminal"
    HUB_TERMINAL = "a terminal on a JupyterHub with the sign-in service"
    REMOTE_TERMINAL = "a terminal over SSH"
    TERMINAL = "a terminal with a browser"
    TERMINAL_WITHOUT_BROWSER = "a terminal without a browser"

    @property
    def is_unattended(self) -> bool:
        """Whether no user can respond. Such a program never waits, regardless of the chosen flow."""
        return self in {RuntimeEnvironment.UNATTENDED, RuntimeEnvironment.NO_TERMINAL}

    @property
    def may_have_hub_service(self) -> bool:
        """Whether a JupyterHub sign-in service may be available."""
        return self.is_unattended or self in {RuntimeEnvironment.HUB_WITH_SERVICE, RuntimeEnvironment.HUB_TERMINAL}


class FlowRow(NamedTuple):
    """A row in the flow table: when it applies, its flows (best first, empty if no user can sign in), and the reason.

    `matches` takes the environment variables and the runtime facts. The first matching row applies.
    """

    environment: RuntimeEnvironment
    matches: Callable[[Mapping[str, str], RuntimeInfo], bool]
    flows: tuple[Flow, ...]
    reason: str


def _has_prefix(environ: Mapping[str, str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in environ)


def _is_remote_vscode(environ: Mapping[str, str], facts: RuntimeInfo) -> bool:
    is_remote = is_remote_session(environ) or environ.get("CODESPACES") or environ.get("REMOTE_CONTAINERS")
    return facts.has_kernel and _has_prefix(environ, "VSCODE_") and bool(is_remote)


_LOOPBACK_FIRST = (Flow.BROWSER, Flow.DEVICE, Flow.PASTE)
_DEVICE_FIRST = (Flow.DEVICE, Flow.PASTE)
_HUB_FIRST = (Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE)
_HUB_REASON = "You are already signed in to JupyterHub."
_OTHER_MACHINE = "The kernel and your browser run on different machines."

FLOW_TABLE: tuple[FlowRow, ...] = (
    FlowRow(
        RuntimeEnvironment.UNATTENDED,
        # nbclient, nbconvert and papermill disallow input (Jupyter messaging, `execute_request`).
        lambda _environ, facts: facts.has_kernel and facts.allows_input is False,
        (),
        "Unattended notebooks can't wait for a user to sign in.",
    ),
    FlowRow(
        RuntimeEnvironment.HUB_WITH_SERVICE,
        lambda environ, facts: facts.has_kernel and bool(environ.get(HUB_VARIABLE)),
        _HUB_FIRST,
        _HUB_REASON,
    ),
    FlowRow(
        RuntimeEnvironment.JUPYTER_WITH_REDIRECT,
        # On a Hub, the server extension sets the variable only if an administrator opted in, and otherwise removes an
        # inherited one.
        lambda environ, facts: facts.has_kernel and bool(environ.get(REDIRECT_VARIABLE)),
        (Flow.REDIRECT, Flow.DEVICE, Flow.PASTE),
        "The Jupyter server receives the provider's response and passes it to the kernel.",
    ),
    FlowRow(
        RuntimeEnvironment.HUB,
        lambda environ, facts: facts.has_kernel and _has_prefix(environ, "JUPYTERHUB_"),
        _DEVICE_FIRST,
        "This Hub doesn't have a sign-in service. Its administrator can add one.",
    ),
    FlowRow(
        RuntimeEnvironment.COLAB,
        lambda _environ, facts: facts.has_kernel and facts.is_colab,
        _DEVICE_FIRST,
        "The kernel runs on a Google server, which your browser can't reach.",
    ),
    FlowRow(RuntimeEnvironment.VSCODE_REMOTE, _is_remote_vscode, _DEVICE_FIRST, _OTHER_MACHINE),
    FlowRow(
        RuntimeEnvironment.REMOTE_JUPYTER,
        lambda environ, facts: facts.has_kernel and is_remote_session(environ),
        _DEVICE_FIRST,
        _OTHER_MACHINE,
    ),
    FlowRow(
        RuntimeEnvironment.VSCODE,
        lambda environ, facts: facts.has_kernel and _has_prefix(environ, "VSCODE_"),
        _LOOPBACK_FIRST,
        "The kernel and your browser run on this machine.",
    ),
    FlowRow(
        RuntimeEnvironment.JUPYTER,
        lambda _environ, facts: facts.has_kernel,
        _LOOPBACK_FIRST,
        "The kernel and your browser appear to run on this machine.",
    ),
    FlowRow(
        RuntimeEnvironment.NO_TERMINAL,
        lambda environ, facts: environ.get("CI", "").lower() not in _NOT_SET or not facts.has_terminal,
        (),
        "There is no terminal, or CI is set, so no user can sign in.",
    ),
    FlowRow(RuntimeEnvironment.HUB_TERMINAL, lambda environ, _facts: is_below_hub(environ), _HUB_FIRST, _HUB_REASON),
    FlowRow(
        RuntimeEnvironment.REMOTE_TERMINAL,
        lambda environ, _facts: is_remote_session(environ),
        _DEVICE_FIRST,
        "This terminal and your browser run on different machines.",
    ),
    FlowRow(
        RuntimeEnvironment.TERMINAL,
        lambda _environ, facts: facts.has_browser,
        _LOOPBACK_FIRST,
        "The browser on this machine returns to this program.",
    ),
    FlowRow(
        RuntimeEnvironment.TERMINAL_WITHOUT_BROWSER,
        lambda _environ, _facts: True,
        _DEVICE_FIRST,
        "No graphical browser is available.",
    ),
)
_ROWS = {row.environment: row for row in FLOW_TABLE}


def detect_environment(environ: Mapping[str, str], facts: RuntimeInfo) -> RuntimeEnvironment:
    """Return the runtime environment that these variables and facts indicate."""
    return next(row.environment for row in FLOW_TABLE if row.matches(environ, facts))


def available_flows(environ: Mapping[str, str], facts: RuntimeInfo) -> frozenset[Flow]:
    """Return the flows that a program with these variables and facts supports."""
    if is_below_hub(environ):
        return BASIC_FLOWS | {Flow.HUB, Flow.REDIRECT}
    # A terminal may inherit the variable from its server, but it has no kernel to receive the callback.
    return BASIC_FLOWS | ({Flow.REDIRECT} if facts.has_kernel and environ.get(REDIRECT_VARIABLE) else set())


class SkippedFlow(NamedTuple):
    """A preferred flow that cannot be used; the reason completes a sentence."""

    flow: Flow
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChoice:
    """How to sign in here, and a sentence that explains why.

    Attributes:
        flow: The flow, or None if no user can sign in; `remedy` then explains what to do instead.
        fallbacks: The flows to try if the first one fails, in order. Callers must announce each switch.
        origin: The source of the choice: `argument`, `remembered`, `environment`, or the setting's name.
        skipped: Preferred flows that cannot be used.
    """

    flow: Flow | None
    environment: RuntimeEnvironment
    origin: str
    reason: str
    fallbacks: tuple[Flow, ...] = ()
    skipped: tuple[SkippedFlow, ...] = ()
    remedy: str = ""


def choose_flow(
    environment: RuntimeEnvironment,
    *,
    wanted: Flow | None = None,
    origin: str | None = None,
    can_device: bool | None = None,
    available: Collection[Flow] = BASIC_FLOWS,
) -> FlowChoice:
    """Choose how to sign in.

    `wanted` is the user's choice, and `origin` its source: `argument`, `remembered`, or the setting's name.
    `can_device` is whether the provider has a device endpoint, or None if unknown. `available` are the flows that can
    be used here.
    """
    row = _ROWS[environment]
    origin = TABLE if wanted is None else origin or ARGUMENT
    choice = FlowChoice(flow=None, environment=environment, origin=TABLE, reason=row.reason)
    # An explicitly chosen flow is honored even without a terminal.
    if environment.is_unattended and not (environment is RuntimeEnvironment.NO_TERMINAL and origin == ARGUMENT):
        if Flow.HUB in available and wanted in {None, Flow.HUB}:  # requires no user
            return replace(choice, flow=Flow.HUB, origin=origin, reason=_HUB_REASON)
        return replace(choice, remedy=UNATTENDED_REMEDY)
    candidates = row.flows if wanted is None else (wanted, *(flow for flow in row.flows if flow is not wanted))
    obstacles = {flow: _obstacle(flow, available, can_device) for flow in candidates}
    possible = tuple(flow for flow in row.flows if obstacles[flow] is None)
    skipped = tuple(
        SkippedFlow(flow, obstacles[flow] or "")
        for flow in itertools.takewhile(lambda flow: obstacles[flow] is not None, candidates)
    )
    if wanted is not None and (not skipped or origin != REMEMBERED):
        choice = replace(choice, origin=origin)
        chooser = "an earlier sign-in of this profile" if origin == REMEMBERED else origin
        if skipped:
            reason = f"{wanted.value} was chosen by {chooser}, but {skipped[0].reason}."
            remedy = "Choose a different flow, or auto."
            return replace(choice, reason=reason, skipped=skipped[:1], remedy=remedy)
        # A flow that was just requested explicitly has no fallback.
        fallbacks = () if origin == ARGUMENT else tuple(flow for flow in possible if flow is not wanted)
        return replace(choice, flow=wanted, fallbacks=fallbacks, reason=f"It was chosen by {chooser}.")
    if not possible:
        remedy = "Run `micromegas login` on a machine with a browser."
        return replace(choice, skipped=skipped, remedy=remedy)
    return replace(choice, flow=possible[0], fallbacks=possible[1:], skipped=skipped)


def _obstacle(flow: Flow, available: Collection[Flow], can_device: bool | None) -> str | None:  # noqa: FBT001 - private
    if flow not in available:
        return "it is not available here"
    if flow is Flow.DEVICE and can_device is False:
        return "the identity provider does not support device sign-in"
    return None


def is_worth_another_flow(error: MicromegasError) -> bool:
    """Whether a different flow may succeed after a sign-in failed to start for this reason."""
    if error.sign_in_service is not None or isinstance(error, ProviderMisbehaved):
        return True
    return isinstance(error, LoginFailed) and error.provider_code != "invalid_client"


class StartedLogin(Protocol):
    """The parts of a `PendingLogin` that the two functions below use."""

    @property
    def done(self) -> bool: ...  # noqa: D102
    def submit(self, text: Secret) -> None: ...  # noqa: D102


Login = TypeVar("Login", bound=StartedLogin)


def start_first(
    flows: Sequence[Flow], *, reason: str = "", begin: Callable[[Flow, str], Login], show: Callable[[Login, str], bool]
) -> Login:
    """Start the first of `flows` that can start and that the user can complete.

    `begin` starts a flow and ends the previous one. `show` shows a sign-in and returns whether the user can complete
    it. Both receive the reason for the flow.
    """
    left = list(flows)
    while True:
        flow = left.pop(0)
        try:
            login = begin(flow, reason)
        except MicromegasError as error:
            if not left or not is_worth_another_flow(error):
                raise
            reason = f"Not by {flow.value}: {error.what}"
            continue
        if show(login, reason) or not left:
            return login
        reason = "No browser opened here."


def take_pasted(
    login: StartedLogin, *, prompt: Callable[[], Secret | None], show_error: Callable[[MicromegasError], None]
) -> None:
    """Prompt until the user pastes a valid address or the sign-in ends; its result reports other failures."""
    for _ in range(MAX_PASTE_TRIES):
        pasted = prompt()
        if pasted is None:
            return
        try:
            login.submit(pasted)
        except (UsageError, ProviderMisbehaved) as error:
            if login.done:
                return
            show_error(error)
        else:
            return
    raise LoginFailed("None of the pasted URLs belongs to this sign-in.")


def login_remedy(environment: RuntimeEnvironment, *, profile: str | None = None) -> str:
    """Return the remedy for a user who isn't signed in."""
    option = "" if profile is None else f" --profile {profile}"
    if environment.is_unattended:
        return UNATTENDED_REMEDY.replace("micromegas login", f"micromegas login{option}")
    is_terminal = "terminal" in environment.value
    command = f"`micromegas login{option}`" if is_terminal else f"%micromegas_login{option}"
    return f"Run {command}, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account."


# A gateway forwards only variables that begin with KERNEL_ to a kernel. This project's Jupyter server extension sets
# the first one, and its JupyterHub service sets the second.
REDIRECT_VARIABLE = "KERNEL_MICROMEGAS_REDIRECT"
HUB_VARIABLE = "KERNEL_MICROMEGAS_HUB"
# JupyterHub sets it for each server that it starts: the server's own Hub credential.
HUB_TOKEN_VARIABLE = "JUPYTERHUB_API_TOKEN"  # noqa: S105 - a variable's name, not a token
# These draw in the terminal that started them. `webbrowser` registers them if there is no display.
TEXT_BROWSERS = frozenset({"www-browser", "links", "elinks", "lynx", "w3m", "links2", "browsh"})
BROWSER_START_SECONDS = 5.0

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeInfo:
    """What the choice of a flow depends on, besides environment variables."""

    has_kernel: bool = False  # a Jupyter kernel runs this program
    allows_input: bool | None = None  # whether the kernel's front end accepts user input; None if unknown
    has_terminal: bool = False  # standard input or standard error is a terminal
    is_colab: bool = False  # `google.colab` can be imported
    has_browser: bool = False  # a graphical browser can be opened from here


def gather_runtime_info(
    *, environ: Mapping[str, str] | None = None, shell: object = None, allows_input: bool | None = None
) -> RuntimeInfo:
    """Detect where this process runs.

    `shell` overrides the running IPython shell. `allows_input` is for a kernel that has an active user, such as after
    a click.
    """
    kernel = getattr(_running_shell() if shell is None else shell, "kernel", None)
    if kernel is not None:
        return RuntimeInfo(has_kernel=True, allows_input=allows_input or _allows_input(kernel), is_colab=_is_colab())
    has_terminal = any(_is_terminal(stream) for stream in (sys.stdin, sys.stderr))
    return RuntimeInfo(has_terminal=has_terminal, has_browser=has_graphical_browser(process_variables(environ)))


def is_below_hub(environ: Mapping[str, str]) -> bool:
    """Whether a Hub with the sign-in service started this program's server, and the server's Hub token is available."""
    return bool(environ.get(HUB_VARIABLE)) and bool(environ.get(HUB_TOKEN_VARIABLE))


def is_remote_session(environ: Mapping[str, str]) -> bool:
    """Whether the user is working on a different machine and can't see windows on this one."""
    return bool(environ.get("SSH_CONNECTION")) and not any(environ.get(name) for name in _DISPLAYS)


def has_graphical_browser(environ: Mapping[str, str]) -> bool:
    """Whether a graphical browser can open on the user's screen."""
    if is_remote_session(environ):
        return False
    needs_display = sys.platform not in {"darwin", "win32"}
    if needs_display and not any(environ.get(name) for name in (*_DISPLAYS, "BROWSER")):
        return False
    controller = _browser_controller()
    return controller is not None and PurePath(str(getattr(controller, "name", ""))).name not in TEXT_BROWSERS


class GraphicalBrowser:
    """The first browser that `webbrowser` finds, if it opens a window; text browsers would take over the terminal."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = os.environ if environ is None else environ

    def open(self, url: str) -> bool:
        """Open `url` in a new tab and return within a few seconds. Returns False if there is no such browser."""
        if not has_graphical_browser(self._environ):
            return False
        results: list[bool] = []
        opening = threading.Thread(target=lambda: results.append(_open(url)), name="micromegas-browser", daemon=True)
        opening.start()
        # A custom command (BROWSER) may stay in the foreground as long as its window is open.
        opening.join(BROWSER_START_SECONDS)
        return results[0] if results else True


def _browser_controller() -> webbrowser.BaseBrowser | None:
    import webbrowser  # imported here because most programs don't open a browser

    with suppress(webbrowser.Error):
        return webbrowser.get()
    return None


def _open(url: str) -> bool:
    controller = _browser_controller()
    with suppress(Exception):  # a user-defined program can fail in any way
        return controller is not None and controller.open(url, new=2)
    return False


def _running_shell() -> object:
    # A program that runs in IPython has already loaded it; loading it here would slow down terminals.
    ipython = sys.modules.get("IPython.core.getipython")
    return None if ipython is None else ipython.get_ipython()


def _allows_input(kernel: object) -> bool | None:
    get_parent = getattr(kernel, "get_parent", None)
    request = get_parent("shell") if callable(get_parent) else None
    content = request.get("content") if isinstance(request, Mapping) else None
    # An interactive front end allows input in each request; others have no user.
    return bool(content.get("allow_stdin", False)) if isinstance(content, Mapping) else None


def _is_colab() -> bool:
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec("google.colab") is not None
    return False


def _is_terminal(stream: object) -> bool:
    with suppress(AttributeError, OSError, ValueError):
        return bool(stream.isatty())  # type: ignore[attr-defined]  # a program may have replaced the stream
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPrompt:
    """What a user sees: the address to open, or the code and the page to enter it on, and when they expire."""

    flow: Flow
    timeout_seconds: float
    expires_at: datetime
    start_url: str | None = field(default=None, repr=False)
    user_code: str | None = field(default=None, repr=False)
    verification_uri: str | None = None
    verification_uri_complete: str | None = field(default=None, repr=False)


class LoginFlow:
    """A flow that waits for the user. One `PendingLogin` uses it, from several threads."""

    def __init__(self, prompt: LoginPrompt) -> None:
        self.prompt = prompt

    def tokens(self) -> TokenSet | None:
        """Wait for the user and return the tokens with a verified ID token, or None after the timeout."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop waiting for the user."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - only one flow takes it
        """Submit the address that the user pasted."""
        raise UsageError(
            "This sign-in does not accept a pasted URL.", remedy="Start a sign-in with the `paste` flow instead."
        )

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser goes to the provider, if the URI isn't known earlier."""

    def show(self, outcome: LoginOutcome) -> None:
        """Show the outcome to the user."""

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Release all resources once the last page has been shown or after `linger_seconds`; safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """An authorization code grant with PKCE: the request, and the provider's metadata at the time of the request."""

    request: AuthorizationRequest
    metadata: ProviderMetadata
    connection: ProviderConnection
    needs_id_token: bool = True

    def code_in(self, query: Secret) -> Secret:
        """Return the code that a callback carries; raises the same errors as `parse_callback`."""
        return parse_callback(query, request=self.request, metadata=self.metadata)

    def redeem(self, code: Secret) -> TokenSet:
        """Exchange the code and verify the ID token; raises the errors of `ProviderConnection.exchange_code`."""
        return self.connection.exchange_code(self.request, code, needs_id_token=self.needs_id_token)


class CallbackFlow(LoginFlow):
    """A code grant that completes with one callback from another thread. Its lock guards the grant and the callback."""

    def __init__(self, prompt: LoginPrompt, grant: CodeGrant | None = None) -> None:
        super().__init__(prompt)
        self._lock = threading.Lock()
        self._grant = grant
        self._callback: Secret | MicromegasError | None = None
        self._ended = threading.Event()

    def accept(self, query: Secret) -> bool:
        """Accept a callback's query if it is the first one for this sign-in; return whether it was accepted."""
        with self._lock:
            if self._grant is None or self._ended.is_set() or not is_callback_of(query.reveal(), self._grant.request):
                return False
            try:
                self._callback = self._grant.code_in(query)
            except MicromegasError as error:
                self._callback = error
            self._ended.set()
            return True

    def tokens(self) -> TokenSet | None:
        """Wait for the callback and exchange its code."""
        self._ended.wait(self.prompt.timeout_seconds)
        self._ended.set()  # later callbacks are ignored
        with self._lock:
            grant, answer, self._callback = self._grant, self._callback, None
        if isinstance(answer, MicromegasError):
            raise answer
        return None if answer is None or grant is None else grant.redeem(answer)

    def stop(self) -> None:
        """Stop waiting; has no effect once a callback has been accepted."""
        self._ended.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest:
    """A requested sign-in, the input of every flow; `OidcAuthProvider.begin_login` describes the fields."""

    connection: ProviderConnection
    store: TokenStore | None = None
    bearer: Bearer = Bearer.ID_TOKEN
    scope: str = DEFAULT_SCOPE
    audience: str | None = None
    resource: str | None = None
    redirect_uri: str | None = None
    authorize_params: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", complete_scope(self.scope))

    @property
    def key(self) -> LoginKey:
        """The key under which the sign-in is stored."""
        return LoginKey(
            issuer=self.connection.issuer,
            client_id=self.connection.client_id,
            audience=self.audience,
            scope=self.scope,
            resource=self.resource,
        )

    @property
    def needs_id_token(self) -> bool:
        """Whether a sign-in without an ID token fails."""
        return self.bearer is Bearer.ID_TOKEN

    def build_grant(self, metadata: ProviderMetadata, redirect_uri: str, *, state_prefix: str = "") -> CodeGrant:
        """Build an authorization request without network I/O."""
        authorization = build_authorization_request(
            metadata,
            client_id=self.connection.client_id,
            redirect_uri=redirect_uri,
            scope=self.scope,
            randomness=self.connection.randomness,
            audience=self.audience,
            resource=self.resource,
            extra_parameters=self.authorize_params,
            state_prefix=state_prefix,
        )
        return CodeGrant(
            request=authorization, metadata=metadata, connection=self.connection, needs_id_token=self.needs_id_token
        )

    def wait_seconds(self, default_seconds: float, *, maximum: float | None = None) -> float:
        """Return how long to wait for the user."""
        seconds = default_seconds if self.timeout_seconds is None else self.timeout_seconds
        return seconds if maximum is None else min(seconds, maximum)

    def build_prompt(self, flow: Flow, timeout_seconds: float, **shown: str | None) -> LoginPrompt:
        """Create a prompt whose lifetime starts now."""
        expires_at = self.connection.clock.now() + timedelta(seconds=timeout_seconds)
        return LoginPrompt(flow=flow, timeout_seconds=timeout_seconds, expires_at=expires_at, **shown)


# The contrast between text and background is at least 4.5:1 in both color schemes (WCAG 2.2, 1.4.3).
STYLE = (
    ":root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--text:#1c2128;--quiet:#57606a;--good:#1a7f37;"
    "--bad:#b42318;--line:#d8dee4}"
    "@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--text:#e6edf3;--quiet:#9da7b3;"
    "--good:#3fb950;--bad:#ff8177;--line:#30363d}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--page);"
    "color:var(--text);font:1rem/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;width:100%;padding:2rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:.75rem;text-align:center}"
    "h1{font-size:1.35rem;margin:.75rem 0}p{margin:.5rem 0;overflow-wrap:anywhere}.hint{color:var(--quiet)}"
    ".mark{display:inline-grid;place-items:center;width:3rem;height:3rem;border-radius:50%;border:2px solid;"
    "font-size:1.5rem;font-weight:700}.success .mark{color:var(--good)}.failure .mark{color:var(--bad)}"
)
# Browsers ignore this unless a script opened the tab, as the card in a notebook does.
_CLOSE = "close()"


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


STYLE_HASH = _csp_hash(STYLE)
CONTENT_TYPE = "text/html; charset=utf-8"
# Source: RFC 9700 sections 4.2.4 and 4.16. The address contains the code and state, so referrers, caching, and framing
# are disabled.
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{STYLE_HASH}'; script-src '{_csp_hash(_CLOSE)}'; frame-ancestors 'none'; "
            "base-uri 'none'; form-action 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)

_QR_CAPTION = "The page to open, with the code filled in:"
_QR_BORDER_MODULES = 2
# A longer address produces a code that a phone cannot scan from a screen at this size.
MAX_QR_CHARACTERS = 512
# Bright white on black, regardless of the terminal's colors, because the QR code is drawn light on dark.
_QR_COLOURS = "\x1b[97;40m"
_USUAL_COLOURS = "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page and its HTTP status."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOutcome:
    """The outcome of a sign-in: the user's name from the tokens, or the error and its remedy."""

    is_signed_in: bool
    who: str = ""
    what: str = ""
    remedy: str = ""

    def page(self) -> Page:
        """Return the page that reports the outcome."""
        if not self.is_signed_in:
            title, hint = "You are not signed in", f"{self.remedy} You can close this tab.".strip()
            return _page(status=200, title=title, sentences=[self.what], hint=hint, is_failure=True)
        return _page(
            status=200,
            title="You are signed in",
            sentences=[f"Signed in as {self.who}."] if self.who else [],
            hint="You can close this tab and continue where you started.",
            closes=True,
        )


def notice_page(*, status: int, what: str) -> Page:
    """Return a page for requests that do not belong to a running sign-in."""
    return _page(status=status, title="Nothing to do here", sentences=[what], is_failure=True)


def handed_over_page() -> Page:
    """Return the page for a callback when only the program that started the sign-in knows the outcome."""
    return _page(
        status=200,
        title="Back to where you started",
        sentences=["Your response was passed on."],
        hint="You can close this tab. The notebook shows whether you are signed in.",
        closes=True,
    )


def reload_page() -> Page:
    """Return a page that reloads itself immediately, so that the request comes from this site."""
    return _page(status=200, title="One moment", sentences=[], head='<meta http-equiv="refresh" content="0">')


def _page(  # noqa: PLR0913 - the parts of a page
    *,
    status: int,
    title: str,
    sentences: list[str],
    hint: str = "",
    is_failure: bool = False,
    head: str = "",
    closes: bool = False,
) -> Page:
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    closing = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    script = f"<script>{_CLOSE}</script>" if closes else ""
    # A screen reader announces a failure immediately and a success after the current sentence.
    role, mark, kind = ("alert", "!", "failure") if is_failure else ("status", "✓", "success")
    html = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{head}<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main role="{role}" class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>'
        f"<h1>{escape(title)}</h1>{paragraphs}{closing}</main>{script}</body></html>"
    )
    return Page(status=status, body=html.encode())


NOT_FOUND_PAGE = notice_page(status=404, what="There is no such page.")
WRONG_METHOD_PAGE = notice_page(status=405, what="This address can only be opened in a browser.")
NOT_A_PAGE_LOAD = notice_page(status=403, what="This address can only be opened in a browser tab.")
STILL_WORKING_PAGE = notice_page(status=200, what="The sign-in is still being completed. Reload this page in a moment.")
NOT_UNDERSTOOD = "The request could not be understood."


def terminal_qr(address: str, *, columns: int) -> list[str]:
    """Return a QR code of the address as lines; empty if the address is missing or too long, or the code too wide."""
    if not 0 < len(address) <= MAX_QR_CHARACTERS:
        return []
    import segno

    symbol = segno.make_qr(address, error="l")
    if symbol.symbol_size(border=_QR_BORDER_MODULES)[0] > columns:
        return []
    drawn = io.StringIO()
    symbol.terminal(drawn, compact=True, border=_QR_BORDER_MODULES)
    return [f"{_QR_COLOURS}{line}{_USUAL_COLOURS}" for line in drawn.getvalue().splitlines()]


def qr_lines(address: str, *, stream: TextIO, environ: Mapping[str, str]) -> list[str]:
    """Return a QR code of the address with its caption, or nothing if the stream can't show it."""
    shows_blocks = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if not shows_blocks or not has_color(stream, environ):
        return []
    lines = terminal_qr(address, columns=shutil.get_terminal_size().columns)
    return [_QR_CAPTION, *lines] if lines else []
