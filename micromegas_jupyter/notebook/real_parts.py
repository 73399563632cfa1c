"""The parts that `assembly` and `auth` give the magics; each loads when it is first used."""

from __future__ import annotations

import sys
import warnings
from threading import Lock
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.notebook.parts import FlowToUse, Parts
from micromegas_jupyter.seams import SYSTEM_CLOCK, process_variables
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.auth.background_renewal import RenewableProvider
    from micromegas_jupyter.auth.flow_choice import FlowChoice
    from micromegas_jupyter.auth.redirect_desk import RedirectDesk
    from micromegas_jupyter.client import FlightSQLClient
    from micromegas_jupyter.client.wrapper import WrappedClient
    from micromegas_jupyter.contracts import AuthProvider
    from micromegas_jupyter.errors import MicromegasError
    from micromegas_jupyter.notebook.parts import FlowWish, Login, Renewal
    from micromegas_jupyter.settings import ClientSettings

_OTHER_MACHINE = "Is the kernel on another machine than your browser? Run %micromegas_login --flow device."


def real_parts(begin_login: Callable[[ClientSettings, Flow], Login] | None = None) -> Parts:
    """Return the parts for a notebook or an IPython terminal.

    Args:
        begin_login: Another way to start a sign-in than `assembly`'s.
    """
    return Parts(
        load_settings=_load_settings,
        stored_provider=_stored_provider,
        choose_flow=_choose_flow,
        remember_flow=_remember_flow,
        begin_login=_LoginStarter().begin if begin_login is None else begin_login,
        logout=_logout,
        renewal=_renewal,
        open_client=_ClientOpener().open,
        ask=_ask,
        is_wrapped=_is_wrapped,
        browser=_GraphicalBrowser(),
    )


class _GraphicalBrowser:
    """The person's browser, if it opens a window of its own."""

    def open(self, url: str) -> bool:
        from micromegas_jupyter.auth.graphical_browser import GraphicalBrowser

        return GraphicalBrowser().open(url)


class _NoBrowser:
    """Opens nothing."""

    def open(self, _url: str) -> bool:
        return False


def _load_settings(profile: str | None, variables: Mapping[str, str]) -> ClientSettings:
    from micromegas_jupyter import assembly

    return assembly.load_client_settings(profile=profile, options=variables)


def _stored_provider(settings: ClientSettings) -> AuthProvider | None:
    from micromegas_jupyter import assembly

    return assembly.stored_provider(settings)


def _is_wrapped() -> bool:
    from micromegas_jupyter import assembly

    return assembly.is_wrapped()


def _choose_flow(settings: ClientSettings, shell: object, wish: FlowWish) -> FlowToUse:
    from micromegas_jupyter import assembly
    from micromegas_jupyter.auth.surroundings import gather_facts

    facts = gather_facts(shell=shell)
    choice = assembly.choose_flow(settings, facts=facts, wanted=wish.flow, is_automatic=wish.is_automatic)
    flow = assembly.require_flow(settings, choice)
    return FlowToUse(flow=flow, reason=flow_reason(choice, has_kernel=facts.has_kernel), fallbacks=choice.fallbacks)


def flow_reason(choice: FlowChoice, *, has_kernel: bool) -> str:
    """Return why a person signs in in this way; empty for what they asked for, and for what everybody expects."""
    from micromegas_jupyter.auth.flow_choice import ARGUMENT

    if choice.origin == ARGUMENT:
        return ""
    if choice.skipped:
        return " ".join(f"Not by {skipped.flow.value}: {skipped.reason}." for skipped in choice.skipped)
    if choice.flow is Flow.REDIRECT:
        return ""
    if choice.flow is Flow.BROWSER:
        return _OTHER_MACHINE if has_kernel else ""
    return choice.reason


def _remember_flow(settings: ClientSettings, flow: Flow | None) -> None:
    from micromegas_jupyter import assembly

    assembly.remember_flow(settings, flow)


class _LoginStarter:
    """Starts sign-ins; those by redirect share the kernel's one desk.

    `_lock` keeps a cell and a widget's button, which come on two threads, from making two of them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._desk: RedirectDesk | None = None

    def begin(self, settings: ClientSettings, flow: Flow) -> Login:
        from micromegas_jupyter import assembly

        desk = self._open_desk() if flow is Flow.REDIRECT else None
        return assembly.begin_login(settings, flow=flow, announce=_announce, desk=desk)

    def _open_desk(self) -> RedirectDesk | None:
        from micromegas_jupyter.notebook.control_channel import listen, make_desk

        kernel = _running_kernel()
        with self._lock:
            self._desk = self._desk or make_desk(kernel, process_variables())
            if self._desk is not None:
                listen(kernel, self._desk)
            return self._desk


def _running_kernel() -> object:
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None)


def _logout(settings: ClientSettings, end_session: bool) -> object:  # noqa: FBT001 - `Parts.logout`'s shape
    from micromegas_jupyter import assembly

    # A browser that opens where the kernel runs need not be the person's; the report then has the address.
    browser = _NoBrowser() if _in_kernel() else _GraphicalBrowser()
    return assembly.logout(settings, end_session=end_session, browser=browser)


def _renewal(provider: AuthProvider, on_change: Callable[[MicromegasError | None], None]) -> Renewal | None:
    # Service accounts renew when they are asked: nobody looks at how long their token is good. So does JupyterHub's
    # sign-in: what is told to the widget beside the cells counts as a person's activity, which keeps a server from
    # being culled.
    if getattr(provider, "through", "") or not callable(getattr(provider, "renewal_due_at", None)):
        return None
    from micromegas_jupyter.notebook.renewing import TokenRenewal

    return TokenRenewal(cast("RenewableProvider", provider), clock=SYSTEM_CLOCK, on_change=on_change)


class _ClientOpener:
    """Opens clients; that a wrapper is deprecated is said once, in words and without a place in the code."""

    def __init__(self) -> None:
        self._has_said_so = False

    def open(self, settings: ClientSettings, provider: AuthProvider | None) -> FlightSQLClient | WrappedClient:
        from micromegas_jupyter import assembly
        from micromegas_jupyter.client.wrapper import DEPRECATION_NOTICE

        if not assembly.is_wrapped():
            return assembly.open_client(settings, provider)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FutureWarning)
            client = assembly.open_client(settings, provider)
        for warning in caught:
            if str(warning.message) != DEPRECATION_NOTICE:
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
            elif not self._has_said_so:
                self._has_said_so = True
                print(f"note: {DEPRECATION_NOTICE}")  # noqa: T201 - to the person
        return client


def _ask(prompt: str) -> str:
    import getpass

    # A kernel puts its front end's password input in place of `getpass`.
    if not _in_kernel() and sys.stdin.isatty():
        from prompt_toolkit import prompt as ask_hidden

        # A terminal that is read by lines takes no more than 1,024 to 4,096 characters; this one is not.
        return ask_hidden(prompt, is_password=True)
    return getpass.getpass(prompt)


def _in_kernel() -> bool:
    from micromegas_jupyter.auth.surroundings import gather_facts

    return gather_facts().has_kernel


def _announce(sentence: str) -> None:
    print(sentence)  # noqa: T201 - to the person
