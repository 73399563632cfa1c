"""The sign-in card: its contents in each state, the widget that draws it in the browser, and its buttons."""

import html
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, cast

import anywidget
import traitlets
from IPython.core.getipython import get_ipython

from micromegas_jupyter.auth.flows.base import MAX_QR_CHARACTERS, qr_lines
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import Clock, process_variables, start_thread
from micromegas_jupyter.errors import InternalError, MicromegasError
from micromegas_jupyter.notebook import SAVED_MIME_TYPE
from micromegas_jupyter.notebook.login.connections import NotebookServices
from micromegas_jupyter.notebook.login.session import (
    IdentityState,
    IdentityStatus,
    NotebookSession,
    offered_actions,
    shown_detail,
    signed_out_state,
)
from micromegas_jupyter.notebook.shell import (
    Handle,
    error_lines,
    has_kernel,
    is_attended,
    new_display_handle,
    time_text,
    where_text,
)

View = dict[str, object]
"""A card's contents: `mark`, `title` (`opened` once the user has followed the link), and `lines`, in which `{left}` is
the time until `seconds` have passed. Then `ended` replaces that line. A `code` and its `qr`, `buttons`, `help` for a
user who returns without a sign-in, and `facts` that expand below a `summary`."""

_LABEL = "Micromegas sign-in"
_ACTIONS = {
    "sign_in": ("Sign in", "Starting the sign-in…"),
    "show_code": ("Show a code", "Asking for a code…"),
    "cancel": ("Cancel", "Ending the sign-in…"),
    "refresh": ("Refresh", "Renewing the token, and asking the server…"),
    "sign_out": ("Sign out", "Signing out…"),
}
_CONFIRM_SIGN_OUT = {
    "text": "Sign out everywhere",
    "line": "This also signs out your other notebooks and terminals on this machine.",
}
_MARKS = {IdentityStatus.SIGNED_IN: "●", IdentityStatus.FAILED: "▲"}
MAX_SHOWN_GROUPS = 32
_QUIET_MODULES = 4  # the white border that scanners need (ISO/IEC 18004, section 9.1)


def build_view(state: IdentityState, *, now: datetime, note: str = "", working: str = "") -> View:
    """Return the card's contents; `note` is the outcome of the last action, and `working` is the current action."""
    seconds = None if state.ends_at is None else (state.ends_at - now).total_seconds()
    shared = {"label": _LABEL, "note": note, "working": working, "seconds": seconds, "awaited": state.is_awaited}
    return {**shared, **_state_view(state)}


def _state_view(state: IdentityState) -> View:
    buttons = [_button(action) for action in offered_actions(state)]
    view: View = {"status": state.status, "mark": _MARKS.get(state.status, "○"), "buttons": buttons, "ended": ""}
    if state.status is IdentityStatus.SIGNED_OUT:
        where = where_text(state.issuer, state.server)
        title, lines = f"Not signed in{where}.", [state.detail]
        if state.server_name:
            title, lines = f"Not signed in to {state.server_name}.", [state.detail, where.strip()]
    elif state.status is IdentityStatus.WAITING:
        title, lines = _waiting_texts(state)
        is_code = state.flow is Flow.DEVICE
        view |= {"ended": f"The {'code' if is_code else 'link'} has expired.", "help": state.help}
        if is_code:
            buttons[0]["text"] = "Open the page"
            view |= {"code": state.user_code, "qr": build_qr_code(state.scan_address)}
        elif state.flow is not Flow.PASTE:
            view["opened"] = "Waiting for you to sign in in the other tab."
    else:
        who = f"Signed in as {state.name}" if state.name else "Signed in"
        title = state.title or (f"{who} ({state.email})" if state.email else who)
        clock, view["ended"] = _clock_texts(state)
        through = f"Signed in through {state.through}" if state.through else ""
        first = " · ".join(filter(None, (through, state.issuer, clock)))
        server_line = f"{state.server}: {state.server_line}" if state.server_line else ""
        lines = [first, server_line or state.detail]
        view |= _facts(state)
        if buttons[0]["opens"]:
            buttons[0]["text"] = "Sign in again"
    return view | {"title": title, "lines": [line for line in lines if line]}


def _button(action: str) -> View:
    text, working = _ACTIONS[action]
    button: View = {"action": action, "text": text, "working": working, "opens": action == "sign_in"}
    return button | {"confirm": _CONFIRM_SIGN_OUT} if action == "sign_out" else button


def _waiting_texts(state: IdentityState) -> tuple[str, list[str]]:
    """Return the title and the lines of a pending sign-in."""
    title, place, what = f"Sign in to {state.server_name or state.issuer}", f"for {state.server}", "notebook"
    if state.server_name:
        place = f"at {state.issuer} {place}"
    if state.is_awaited:
        to = f"to {state.server_name} " if state.server_name else ""
        title, place, what = f"Sign in {to}to continue", f"at {state.issuer} for {state.server}", "cell"
    line = f"{place} · this {what} continues by itself · valid for {{left}}"
    if state.flow is Flow.DEVICE:
        address = state.address.removeprefix("https://").removeprefix("http://").rstrip("/")
        title = f"{title}: go to {address} and type" if state.is_awaited else f"Go to {address} and type"
        return title, [f"Only type it if you started this. {state.detail}".strip(), line]
    if state.flow is Flow.PASTE:
        line = f"for {state.server} · the browser ends at an address that does not load: copy that address"
        return f"Sign in to {state.issuer}, then paste the address below", [line, state.detail]
    return title, [line, state.detail]


def _clock_texts(state: IdentityState) -> tuple[str, str]:
    """Return how long a token remains valid, and the line to show once it has expired."""
    if state.ends_at is None:
        return "", ""
    if state.renews is None:
        return "expires in {left}", "expired"
    if not state.renews:
        return "expires in {left}, does not renew by itself", f"The sign-in to {state.issuer} has expired."
    # JupyterHub renews only when a token is needed.
    return "expires in {left}, renews by itself", "renews at the next query" if state.through else "renewing now"


def _facts(state: IdentityState) -> View:
    """Return the collapsed details, and the line that summarizes them."""
    names, count = state.groups[:MAX_SHOWN_GROUPS], state.group_count
    groups = ", ".join([*names, f"and {count - len(names)} more"] if count > len(names) else names)
    many = f"{count} group{'' if count == 1 else 's'}" if count else ""
    facts = {
        "Subject": state.subject,
        "Rights": f"administrator of {state.server}" if state.is_admin else "",
        "Groups": groups if count else "",
    }
    summary = " · ".join(filter(None, ("admin" if state.is_admin else "", many))) or "details"
    return {"summary": summary, "facts": [[name, fact] for name, fact in facts.items() if fact]}


def build_lines(state: IdentityState, *, now: datetime) -> list[str]:
    """Return the card as plain text, with times instead of countdowns."""
    view = _state_view(state)
    lines = [f"{view['title']} {view.get('code', '')}".rstrip(), *cast("list[str]", view["lines"]), state.help]
    lines += [f"{name}: {fact}" for name, fact in cast("list[list[str]]", view.get("facts", [])) if name != "Subject"]
    if state.address:
        where = " of this Jupyter server" if state.address.startswith("/") else ""
        interrupt = "; interrupt to stop waiting" if state.is_awaited else ""
        lines.append(f"Open {state.address}{where} to sign in{interrupt}.")
    elif view["buttons"] and not state.has_token:
        lines.append("Run %micromegas_login to sign in.")
    end = "" if state.ends_at is None else time_text(state.ends_at, now=now)
    timed = [line.replace("in {left}", f"at {end}").replace("for {left}", f"until {end}") for line in lines if line]
    return [line for line in timed if "{left}" not in line]


def lines_as_html(lines: Sequence[str], state: IdentityState) -> str:
    """Return the lines as a paragraph with a link; without a QR code, because a saved one would be outdated."""
    parts = [html.escape(line) for line in lines]
    if state.address:
        label = "Open the page" if state.user_code else "Sign in"
        parts.append(f'<a href="{html.escape(state.address)}" target="_blank" rel="noopener noreferrer">{label}</a>')
    return f"<p>{'<br>'.join(parts)}</p>"


_STATIC = Path(__file__).parents[1] / "frontend" / "static"


class IdentityCard(anywidget.AnyWidget):
    """Shows one `IdentityState`; `frontend/src/card/card.ts` draws it and counts down.

    Widget state is saved in notebooks. Therefore the view never contains a token or the URL of a sign-in, which is
    sent to the open pages as a message. Times are durations, because the browser's and the kernel's clocks differ.
    """

    _esm = _STATIC / "card.js"
    _css = _STATIC / "card.css"
    view = traitlets.Dict().tag(sync=True)
    #: The view's status as shown on a page. Pages set it for notebooks whose cells depend on traits.
    status = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self, state: IdentityState, *, clock: Clock, on_press: "Callable[[str, IdentityCard], None]" = lambda *_: None
    ) -> None:
        self._clock = clock
        self._on_press = on_press
        self._lock = Lock()
        self._state = state
        self._note = self._working = ""
        super().__init__(view=self._build())
        self.on_msg(self._take_message)
        self.send_address()

    def apply(self, state: IdentityState) -> None:
        """Show a new state; thread-safe."""
        before, self._state = self._state, state
        self._note = ""
        if before.address != state.address:
            self.send_address()
        self._draw()

    def begin_action(self, action: str) -> None:
        """Show that an action is running; thread-safe."""
        self._note, self._working = "", _ACTIONS[action][1]
        self._draw()

    def end_action(self, *, error: str = "", news: str = "") -> None:
        """Show that the action has finished, with a brief notice, or with an error line if it failed; thread-safe."""
        self._note, self._working = error, ""
        self._draw()
        self.send_address(news)

    def send_address(self, news: str = "") -> None:
        """Send the sign-in URL, if any, and a brief notice to the open pages."""
        self.send({"address": self._state.address, "news": news})

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - ipywidgets' own signature
        """Return the traits for a browser with recalculated times, because a page may be reloaded much later."""
        values: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        return values | {"view": self._build()} if "view" in values else values

    def _draw(self) -> None:
        with self._lock:
            self.view = self._build()

    def _build(self) -> View:
        return build_view(self._state, now=self._clock.now(), note=self._note, working=self._working)

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        """Handle a button click, or send the URL to a newly loaded page; ignore messages that aren't from our pages."""
        pressed = content.get("action") if isinstance(content, dict) else None
        if pressed == "":
            self.send_address()
        elif isinstance(pressed, str) and pressed in _ACTIONS:
            self._on_press(pressed, self)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return shown
        lines = build_lines(self._state, now=self._clock.now())
        html = lines_as_html(lines, self._state)
        saved = {SAVED_MIME_TYPE: {"version": 1}, "text/plain": "\n".join(lines), "text/html": html}
        return shown[0] | saved, shown[1]


@lru_cache(maxsize=8)
def build_qr_code(address: str) -> View | None:
    """Return a URL's QR code with its white border: the side length in modules, and the path of the dark modules.

    Returns None for a URL that is empty or too long to be scanned from a screen.
    """
    if not 0 < len(address) <= MAX_QR_CHARACTERS:
        return None
    import segno

    rows = list(segno.make_qr(address, error="m").matrix_iter(border=_QUIET_MODULES))
    path = "".join(f"M{x} {y}h1v1h-1z" for y, row in enumerate(rows) for x, is_dark in enumerate(row) if is_dark)
    return {"label": "QR code of the page to open, with the code filled in", "side": len(rows), "path": path}


def sign_in_card(profile: str | None = None) -> IdentityCard:
    """Return a card that signs in with one click, as a widget for marimo and other notebooks without magics.

    Args:
        profile: A profile of `config.json`; None for the default.

    Raises:
        ConfigurationError: A setting is malformed.
    """
    session = _session(profile)
    settings = session.settings(profile)
    # Even without IPython, a browser shows the card.
    display = IdentityDisplay(get_ipython() or SimpleNamespace(kernel=object()), session)
    reason = session.why_not_signed_in(settings)
    if reason is None:
        session.show(settings, session.state_of(settings, session.connections.get(settings).provider))
        session.fetch_identity_later(settings)
    elif session.pending(settings) is None:
        session.show(settings, signed_out_state(settings))
    return display.current_card(cast("IdentityState", session.state))


@lru_cache(maxsize=8)
def _session(_profile: str | None) -> NotebookSession:
    return NotebookSession(NotebookServices())


TOO_LATE = "Nothing was done, because the sign-in has changed in the meantime."
_log = logging.getLogger(__name__)
_MAX_HANDLES = 64


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show the same card, so it is never outdated."""

    def __init__(self, shell: Any, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._busy = Lock()
        self._card: IdentityCard | None = None
        self._offers: list[Handle] = []
        self._handles: deque[Handle] = deque(maxlen=_MAX_HANDLES)

    def press(self, action: str, card: IdentityCard) -> None:
        """Run a button's action on a thread, one action at a time; notify the user if the click came too late."""
        shown = self._session.shown
        if shown is None or action not in offered_actions(shown[1]) or not self._busy.acquire(blocking=False):
            card.send_address(TOO_LATE)
        elif action == "sign_in" and self._session.pending(shown[0]) is not None:
            self._busy.release()
            card.send_address()  # a reloaded page requested the URL too late
        else:
            card.begin_action(action)
            # Handling a card's message must not block the kernel.
            start_thread(self._run, action, shown[0], card, name=f"micromegas-{action}")

    def _run(self, action: str, settings: ClientSettings, card: IdentityCard) -> None:
        error = news = ""
        try:
            news = self._do(action, settings)
        except MicromegasError as failure:
            error = error_lines(failure)[0]
        except Exception as failure:  # noqa: BLE001 - the buttons must work again
            _log.error("A button of the sign-in card failed.", extra={"kind": type(failure).__name__})
            error = error_lines(InternalError("The action failed."))[0]
        finally:
            self._busy.release()
            card.end_action(error=error, news=news)

    def _do(self, action: str, settings: ClientSettings) -> str:
        session = self._session
        match action:
            case "sign_in":
                session.connections.signed_out.discard(settings.profile)
                has_token = session.state is not None and session.state.has_token
                # The user may have signed in from another notebook or terminal since then.
                if has_token or session.why_not_signed_in(settings) is not None:
                    session.begin_sign_in(settings, self._shell, is_clicked=True)
                else:
                    session.fetch_identity(settings)
            case "show_code":
                session.begin_sign_in(settings, self._shell, Flow.DEVICE, is_clicked=True)
            case "cancel":
                session.cancel()
            case "sign_out":
                report = shown_detail(session.logout(settings))
                session.change(
                    settings,
                    lambda state: replace(state, detail=report) if state.status is IdentityStatus.SIGNED_OUT else state,
                )
            case "refresh":
                is_new = session.renew(settings)
                session.fetch_identity(settings)
                return "Token renewed, and the server checked." if is_new else "Server checked."
        return ""

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        lines = build_lines(state, now=self._session.dependencies.clock.now())
        if not (has_kernel(self._shell) and is_attended(self._shell)):
            # A saved notebook without a viewer would keep an expired countdown.
            picture = qr_lines(state.scan_address, stream=sys.stdout, environ=process_variables())
            print("\n".join([*lines, *picture]))  # noqa: T201 - the magic's output
        else:
            card, handle = self.current_card(state), new_display_handle()
            handle.display(card)
            self._handles.append(handle)
            if state.status is IdentityStatus.WAITING:
                self._offers.append(handle)

    def notice(self) -> Any:
        """Return the output of a cell that waits for a sign-in: the card's MIME bundle and its metadata."""
        state = self._session.state
        return None if state is None else self.current_card(state)._repr_mimebundle_()

    def close(self) -> None:
        """Replace the card with text in all cells, because a widget cannot be displayed without its kernel."""
        card, self._card = self._card, None
        if card is None:
            return
        state = self._session.state
        if state is not None:
            # The token will no longer be renewed, and any pending sign-in is canceled.
            now = self._session.dependencies.clock.now()
            lines = build_lines(replace(state, renews=None), now=now)
            for handle in self._handles:
                handle.update({"text/plain": "\n".join(lines)}, raw=True)
        card.close()

    def current_card(self, state: IdentityState) -> IdentityCard:
        """Return the card that shows the state; it is created the first time that a cell shows it."""
        if self._card is None:
            self._card = IdentityCard(state, clock=self._session.dependencies.clock, on_press=self.press)
            self._session.listener, self._session.remind = self._follow, self._card.send_address
        self._card.apply(state)
        return self._card

    def _follow(self, state: IdentityState) -> None:
        if self._card is None:
            return
        self._card.apply(state)
        if state.status is not IdentityStatus.WAITING:
            # The text that is saved with the card must not offer a sign-in that is already finished.
            offers, self._offers = self._offers, []
            for handle in offers:
                handle.update(self._card)
