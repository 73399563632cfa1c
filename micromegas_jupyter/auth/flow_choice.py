"""Which way a person signs in: a table by surroundings, and what may override it.

Where a program runs is `surroundings`'s job; carrying a flow out is `oidc_provider`'s.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from micromegas_jupyter.auth.hub_variables import is_below_hub
from micromegas_jupyter.auth.surroundings import REDIRECT_VARIABLE, Facts, Surroundings
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed, MicromegasError, ProviderMisbehaved

OFFERED_FLOWS = frozenset({Flow.BROWSER, Flow.DEVICE, Flow.PASTE})
ARGUMENT = "argument"
REMEMBERED = "remembered"
TABLE = "surroundings"

# Where nobody can answer: not even a person's own choice makes a notebook wait that nobody watches.
NOBODY_THERE = frozenset({Surroundings.UNATTENDED, Surroundings.NO_TERMINAL})
_TERMINALS = frozenset(
    {
        Surroundings.TERMINAL,
        Surroundings.TERMINAL_WITHOUT_BROWSER,
        Surroundings.REMOTE_TERMINAL,
        Surroundings.HUB_TERMINAL,
    }
)

UNATTENDED_REMEDY = (
    "Give the program a sign-in of its own (docs/service-accounts.md): MICROMEGAS_OIDC_WORKLOAD, "
    "MICROMEGAS_OIDC_PRIVATE_KEY_FILE or MICROMEGAS_OIDC_CLIENT_SECRET; or run `micromegas login` on this machine "
    "beforehand."
)
HUB_REASON = "JupyterHub knows already who is signed in."
NOTHING_POSSIBLE_REMEDY = "Sign in where a browser can be used: run `micromegas login` there."


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRow:
    """One row of the table.

    Attributes:
        flows: The ways to sign in, best first; empty where nobody can.
        reason: Why this order.
    """

    flows: tuple[Flow, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedFlow:
    """A way to sign in that comes first in its row and cannot be used.

    Attributes:
        flow: The way.
        reason: Why not, as the end of a sentence.
    """

    flow: Flow
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowChoice:
    """How to sign in here, and why so.

    Attributes:
        flow: The way to sign in; None when nobody can.
        fallbacks: What to go on with when that turns out not to work, in order; to be announced, never silent.
        surroundings: Where the program runs.
        origin: Who chose: `argument`, `remembered`, `surroundings`, or the setting's name.
        reason: Why, as a sentence.
        skipped: The ways that would have come before it.
        remedy: What to do instead when `flow` is None; empty otherwise.
    """

    flow: Flow | None
    surroundings: Surroundings
    origin: str
    reason: str
    fallbacks: tuple[Flow, ...] = ()
    skipped: tuple[SkippedFlow, ...] = ()
    remedy: str = ""


FLOW_TABLE: dict[Surroundings, FlowRow] = {
    Surroundings.JUPYTER_WITH_REDIRECT: FlowRow(
        flows=(Flow.REDIRECT, Flow.DEVICE, Flow.PASTE),
        reason="The Jupyter server takes the answer of the identity provider and hands it to the kernel.",
    ),
    Surroundings.HUB_WITH_SERVICE: FlowRow(
        flows=(Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE),
        reason=HUB_REASON,
    ),
    Surroundings.HUB_TERMINAL: FlowRow(
        flows=(Flow.HUB, Flow.REDIRECT, Flow.DEVICE, Flow.PASTE),
        reason=HUB_REASON,
    ),
    Surroundings.HUB: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="This Hub has no sign-in service; its administrator can add one that needs no click "
        "(docs/jupyterhub.md).",
    ),
    Surroundings.COLAB: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="The kernel runs at Google, where no browser of yours can reach it.",
    ),
    Surroundings.VSCODE_REMOTE: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="The kernel runs on another machine than your browser.",
    ),
    Surroundings.VSCODE: FlowRow(
        flows=(Flow.BROWSER, Flow.DEVICE, Flow.PASTE),
        reason="Kernel and browser run on this machine.",
    ),
    Surroundings.REMOTE_JUPYTER: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="The kernel runs on another machine than your browser.",
    ),
    Surroundings.JUPYTER: FlowRow(
        flows=(Flow.BROWSER, Flow.DEVICE, Flow.PASTE),
        reason="Kernel and browser run on this machine, as far as can be seen.",
    ),
    Surroundings.TERMINAL: FlowRow(
        flows=(Flow.BROWSER, Flow.DEVICE, Flow.PASTE),
        reason="A browser opens on this machine and comes back to it.",
    ),
    Surroundings.TERMINAL_WITHOUT_BROWSER: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="No browser with a window can be opened from here.",
    ),
    Surroundings.REMOTE_TERMINAL: FlowRow(
        flows=(Flow.DEVICE, Flow.PASTE),
        reason="Your browser runs on another machine than this terminal.",
    ),
    Surroundings.NO_TERMINAL: FlowRow(
        flows=(), reason="There is no terminal, or CI is set: nobody is here to sign in."
    ),
    Surroundings.UNATTENDED: FlowRow(flows=(), reason="The notebook runs by itself: nobody is here to sign in."),
}


def offered_flows(environ: Mapping[str, str], facts: Facts) -> frozenset[Flow]:
    """Return the flows that a program with this environment and these facts can carry out."""
    if is_below_hub(environ):
        return OFFERED_FLOWS | {Flow.HUB, Flow.REDIRECT}
    # The variable is the word of the server that started this kernel; a terminal may have inherited it.
    if facts.has_kernel and environ.get(REDIRECT_VARIABLE):
        return OFFERED_FLOWS | {Flow.REDIRECT}
    return OFFERED_FLOWS


def choose_flow(
    surroundings: Surroundings,
    *,
    wanted: Flow | None = None,
    origin: str | None = None,
    can_device: bool | None = None,
    available: Collection[Flow] = OFFERED_FLOWS,
) -> FlowChoice:
    """Choose how to sign in.

    Args:
        surroundings: Where the program runs.
        wanted: What a person chose; None leaves it to the table.
        origin: Who chose that: `argument`, `remembered` or the setting's name.
        can_device: Whether the provider has a device endpoint; None when that is not known.
        available: The flows that can be carried out here.
    """
    row = FLOW_TABLE[surroundings]
    origin = TABLE if wanted is None else origin or ARGUMENT
    is_named_in_terminal = surroundings is Surroundings.NO_TERMINAL and wanted is not None and origin == ARGUMENT
    if surroundings in NOBODY_THERE and not is_named_in_terminal:
        if Flow.HUB in available and wanted in {None, Flow.HUB}:  # for which nobody has to be here
            return FlowChoice(flow=Flow.HUB, surroundings=surroundings, origin=origin, reason=HUB_REASON)
        return FlowChoice(
            flow=None, surroundings=surroundings, origin=TABLE, reason=row.reason, remedy=UNATTENDED_REMEDY
        )
    obstacles = {flow: _obstacle(flow, available, can_device) for flow in (*row.flows, *([wanted] if wanted else []))}
    possible = tuple(flow for flow in row.flows if obstacles[flow] is None)
    if wanted is not None and (obstacles[wanted] is None or origin != REMEMBERED):
        return _chosen_by_person(surroundings, wanted, origin, obstacles[wanted], possible)
    first = possible[0] if possible else None
    before = row.flows if first is None else row.flows[: row.flows.index(first)]
    if wanted is not None and wanted not in before:
        before = (wanted, *before)
    return FlowChoice(
        flow=first,
        fallbacks=possible[1:],
        surroundings=surroundings,
        origin=TABLE,
        reason=row.reason,
        skipped=tuple(SkippedFlow(flow=flow, reason=obstacles[flow] or "") for flow in before),
        remedy="" if first is not None else NOTHING_POSSIBLE_REMEDY,
    )


def may_go_on(error: MicromegasError) -> bool:
    """Whether a sign-in that could not be begun for this reason is worth trying in another way.

    A provider may have an endpoint and refuse it to this application, a port may be taken, and the Hub may not help. An
    application that the provider does not know gets nowhere in any way.
    """
    if error.giver is not None or isinstance(error, ProviderMisbehaved):
        return True
    return isinstance(error, LoginFailed) and error.provider_code != "invalid_client"


def login_remedy(surroundings: Surroundings, *, profile: str | None = None) -> str:
    """Return what somebody does, or has to have done, who is not signed in there.

    Args:
        surroundings: Where the program runs.
        profile: The profile of `config.json` that it uses.
    """
    option = "" if profile is None else f" --profile {profile}"
    if surroundings in NOBODY_THERE:
        return UNATTENDED_REMEDY.replace("micromegas login", f"micromegas login{option}")
    command = f"`micromegas login{option}`" if surroundings in _TERMINALS else f"%micromegas_login{option}"
    return f"Run {command}, or set MICROMEGAS_OIDC_CLIENT_SECRET for a service account."


def _chosen_by_person(
    surroundings: Surroundings, wanted: Flow, origin: str, obstacle: str | None, possible: tuple[Flow, ...]
) -> FlowChoice:
    if obstacle is None:
        return FlowChoice(
            flow=wanted,
            # What was asked for just now is not exchanged for something else.
            fallbacks=() if origin == ARGUMENT else tuple(flow for flow in possible if flow is not wanted),
            surroundings=surroundings,
            origin=origin,
            reason=f"It was chosen by {_chooser(origin)}.",
        )
    return FlowChoice(
        flow=None,
        surroundings=surroundings,
        origin=origin,
        reason=f"{wanted.value} was chosen by {_chooser(origin)}, but {obstacle}.",
        skipped=(SkippedFlow(flow=wanted, reason=obstacle),),
        remedy="Choose another way to sign in, or auto.",
    )


def _chooser(origin: str) -> str:
    return "an earlier sign-in of this profile" if origin == REMEMBERED else origin


def _obstacle(flow: Flow, available: Collection[Flow], can_device: bool | None) -> str | None:  # noqa: FBT001 - private
    if flow not in available:
        return "it cannot be carried out here"
    if flow is Flow.DEVICE and can_device is False:
        return "the identity provider has no device sign-in"
    return None
