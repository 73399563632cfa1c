"""Which flow a person signs in by: one table by runtime environment, and what overrides it."""

import enum
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from micromegas_jupyter.auth.flows.environment import (
    HUB_VARIABLE,
    REDIRECT_VARIABLE,
    Facts,
    is_below_hub,
    is_remote_session,
)
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved

# What every program can do; the redirect and the Hub's token need a server that helps.
BASIC_FLOWS = frozenset({Flow.BROWSER, Flow.DEVICE, Flow.PASTE})
ARGUMENT = "argument"
REMEMBERED = "remembered"
TABLE = "environment"

UNATTENDED_REMEDY = (
    "Give the program a sign-in of its own (docs/service-accounts.md): MICROMEGAS_OIDC_WORKLOAD, "
    "MICROMEGAS_OIDC_PRIVATE_KEY_FILE or MICROMEGAS_OIDC_CLIENT_SECRET; or run `micromegas login` on this machine "
    "beforehand."
)
_NOT_SET = frozenset({"", "0", "false"})


class RuntimeEnvironment(enum.StrEnum):
    """Where a program runs; each value is its name for people."""

    UNATTENDED = "a notebook that runs by itself"
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
        """Whether nobody can answer: not even a person's own choice makes such a program wait."""
        return self in {RuntimeEnvironment.UNATTENDED, RuntimeEnvironment.NO_TERMINAL}

    @property
    def may_have_hub_service(self) -> bool:
        """Whether the sign-in service of a JupyterHub may be at hand."""
        return self.is_unattended or self in {RuntimeEnvironment.HUB_WITH_SERVICE, RuntimeEnvironment.HUB_TERMINAL}


class FlowRow(NamedTuple):
    """One row of the table: where it applies, which flows (best first, empty where nobody can sign in), and why.

    `matches` takes the environment variables and the facts; the first row that matches counts.
    """

    environment: RuntimeEnvironment
    matches: Callable[[Mapping[str, str], Facts], bool]
    flows: tuple[Flow, ...]
    reason: str


def _has_prefix(environ: Mapping[str, str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in environ)


def _is_remote_vscode(environ: Mapping[str, str], facts: Facts) -> bool:
    is_remote = is_remote_session(environ) or environ.get("CODESPACES") or environ.get("REMOTE_CONTAINERS")
    return facts.has_kernel and _has_prefix(environ, "VSCODE_") and bool(is_remote)


_LOOPBACK_FIRST = (Flow.BROWSER, Flow.DEVICE, Flow.PASTE)
_DEVICE_FIRST = (Flow.DEVICE, Flow.PASTE)
_HUB_FIRST = (Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE)
_HUB_REASON = "JupyterHub already knows who is signed in."
_OTHER_MACHINE = "The kernel runs on another machine than your browser."

FLOW_TABLE: tuple[FlowRow, ...] = (
    FlowRow(
        RuntimeEnvironment.UNATTENDED,
        # nbclient, nbconvert and papermill say that nobody can answer (Jupyter messaging, `execute_request`).
        lambda _environ, facts: facts.has_kernel and facts.allows_input is False,
        (),
        "The notebook runs by itself: nobody is here to sign in.",
    ),
    FlowRow(
        RuntimeEnvironment.HUB_WITH_SERVICE,
        lambda environ, facts: facts.has_kernel and bool(environ.get(HUB_VARIABLE)),
        _HUB_FIRST,
        _HUB_REASON,
    ),
    FlowRow(
        RuntimeEnvironment.JUPYTER_WITH_REDIRECT,
        # On a Hub the server extension sets the variable only where an administrator opted in, and removes an
        # inherited one otherwise.
        lambda environ, facts: facts.has_kernel and bool(environ.get(REDIRECT_VARIABLE)),
        (Flow.REDIRECT, Flow.DEVICE, Flow.PASTE),
        "The Jupyter server receives the identity provider's answer and passes it to the kernel.",
    ),
    FlowRow(
        RuntimeEnvironment.HUB,
        lambda environ, facts: facts.has_kernel and _has_prefix(environ, "JUPYTERHUB_"),
        _DEVICE_FIRST,
        "This Hub has no sign-in service. Its administrator can add one that needs no click (docs/jupyterhub.md).",
    ),
    FlowRow(
        RuntimeEnvironment.COLAB,
        lambda _environ, facts: facts.has_kernel and facts.is_colab,
        _DEVICE_FIRST,
        "The kernel runs at Google, where your browser cannot reach it.",
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
        "Kernel and browser run on this machine.",
    ),
    FlowRow(
        RuntimeEnvironment.JUPYTER,
        lambda _environ, facts: facts.has_kernel,
        _LOOPBACK_FIRST,
        "Kernel and browser appear to run on this machine.",
    ),
    FlowRow(
        RuntimeEnvironment.NO_TERMINAL,
        lambda environ, facts: environ.get("CI", "").lower() not in _NOT_SET or not facts.has_terminal,
        (),
        "There is no terminal, or CI is set: nobody is here to sign in.",
    ),
    FlowRow(RuntimeEnvironment.HUB_TERMINAL, lambda environ, _facts: is_below_hub(environ), _HUB_FIRST, _HUB_REASON),
    FlowRow(
        RuntimeEnvironment.REMOTE_TERMINAL,
        lambda environ, _facts: is_remote_session(environ),
        _DEVICE_FIRST,
        "Your browser runs on another machine than this terminal.",
    ),
    FlowRow(
        RuntimeEnvironment.TERMINAL,
        lambda _environ, facts: facts.has_browser,
        _LOOPBACK_FIRST,
        "A browser opens on this machine and reports back to this program.",
    ),
    FlowRow(
        RuntimeEnvironment.TERMINAL_WITHOUT_BROWSER,
        lambda _environ, _facts: True,
        _DEVICE_FIRST,
        "No browser with a window can be opened from here.",
    ),
)
_ROWS = {row.environment: row for row in FLOW_TABLE}


def detect_environment(environ: Mapping[str, str], facts: Facts) -> RuntimeEnvironment:
    """Return where a program with these variables and facts runs."""
    return next(row.environment for row in FLOW_TABLE if row.matches(environ, facts))


def available_flows(environ: Mapping[str, str], facts: Facts) -> frozenset[Flow]:
    """Return the flows that a program with these variables and facts can carry out."""
    if is_below_hub(environ):
        return BASIC_FLOWS | {Flow.HUB, Flow.REDIRECT}
    # A terminal may have inherited the variable from its server, and has no kernel to receive an answer.
    return BASIC_FLOWS | ({Flow.REDIRECT} if facts.has_kernel and environ.get(REDIRECT_VARIABLE) else set())


class SkippedFlow(NamedTuple):
    """A flow that would come first and cannot be used; the reason is the end of a sentence."""

    flow: Flow
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChoice:
    """How to sign in here, and why.

    Attributes:
        flow: The flow; None when nobody can sign in.
        fallbacks: What to try when that turns out not to work, in order; to be announced, never silent.
        environment: Where the program runs.
        origin: Who chose: `argument`, `remembered`, `environment`, or the setting's name.
        reason: Why, as a sentence.
        skipped: The flows that would have come before it.
        remedy: What to do instead when `flow` is None; empty otherwise.
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

    Args:
        environment: Where the program runs.
        wanted: What a person chose; None leaves it to the table.
        origin: Who chose that: `argument`, `remembered` or the setting's name.
        can_device: Whether the provider has a device endpoint; None when that is not known.
        available: The flows that can be carried out here.
    """
    row = _ROWS[environment]
    origin = TABLE if wanted is None else origin or ARGUMENT
    choice = FlowChoice(flow=None, environment=environment, origin=TABLE, reason=row.reason)
    # A flow that somebody has just named for a program without a terminal is what they want.
    if environment.is_unattended and not (environment is RuntimeEnvironment.NO_TERMINAL and origin == ARGUMENT):
        if Flow.HUB in available and wanted in {None, Flow.HUB}:  # which needs nobody
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
            remedy = "Choose another way to sign in, or auto."
            return replace(choice, reason=reason, skipped=skipped[:1], remedy=remedy)
        # A flow that was named just now is not replaced by another.
        fallbacks = () if origin == ARGUMENT else tuple(flow for flow in possible if flow is not wanted)
        return replace(choice, flow=wanted, fallbacks=fallbacks, reason=f"It was chosen by {chooser}.")
    if not possible:
        remedy = "Sign in where a browser can be used: run `micromegas login` there."
        return replace(choice, skipped=skipped, remedy=remedy)
    return replace(choice, flow=possible[0], fallbacks=possible[1:], skipped=skipped)


def _obstacle(flow: Flow, available: Collection[Flow], can_device: bool | None) -> str | None:  # noqa: FBT001 - private
    if flow not in available:
        return "it is not available here"
    if flow is Flow.DEVICE and can_device is False:
        return "the identity provider has no device sign-in"
    return None


def is_worth_another_flow(error: MicromegasError) -> bool:
    """Whether a sign-in that could not be started for this reason may work by another flow.

    A provider may have an endpoint and refuse it to this application, a port may be taken, and the Hub may not help. An
    application that the provider does not know gets nowhere by any flow.
    """
    if error.giver is not None or isinstance(error, ProviderMisbehaved):
        return True
    return isinstance(error, LoginFailed) and error.provider_code != "invalid_client"


def login_remedy(environment: RuntimeEnvironment, *, profile: str | None = None) -> str:
    """Return what somebody who is not signed in does there, or should have done."""
    option = "" if profile is None else f" --profile {profile}"
    if environment.is_unattended:
        return UNATTENDED_REMEDY.replace("micromegas login", f"micromegas login{option}")
    is_terminal = "terminal" in environment.value
    command = f"`micromegas login{option}`" if is_terminal else f"%micromegas_login{option}"
    return f"Run {command}, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account."
