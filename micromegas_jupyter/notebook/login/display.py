"""Shows the state of the sign-in (as a widget, or as text where nobody watches), and handles the widget's buttons."""

import logging
import shutil
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, NamedTuple

import anywidget
import traitlets
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import Clock, process_variables
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.login.session import (
    MAX_SHOWN_GROUPS,
    IdentityAction,
    IdentityState,
    IdentityStatus,
    NotebookSession,
    SignInOffer,
    accepted_actions,
    identity_lines,
    lines_as_html,
    offered_actions,
    shown_detail,
)
from micromegas_jupyter.notebook.shell import (
    Handle,
    display,
    error_lines,
    has_kernel,
    is_attended,
    new_display_handle,
    start_thread,
)

TOO_LATE = "Nothing was done, because the sign-in has changed meanwhile."
_log = logging.getLogger(__name__)
_MAX_HANDLES = 64


class IdentityButtons:
    """Handles one button at a time, on a thread: a widget's message must not block the kernel."""

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._busy = Lock()

    def press(self, action: IdentityAction, widget: "IdentityWidget") -> None:
        """Begin a button's action, and return at once; the person is notified when the button came too late."""
        shown = self._session.shown.shown
        if shown is None or action not in accepted_actions(shown[1]) or not self._busy.acquire(blocking=False):
            widget.notify(TOO_LATE)
            return
        widget.begin_action(action)
        start_thread(self._run, action, shown[0], widget, name=f"micromegas-{action}")

    def _run(self, action: IdentityAction, settings: ClientSettings, widget: "IdentityWidget") -> None:
        error = news = ""
        try:
            news = self._do(action, settings)
        except MicromegasError as failure:
            error = error_lines(failure)[0]
        except Exception as failure:  # noqa: BLE001 - whatever happens, the buttons work again
            _log.error("A button of the identity widget failed.", extra={"kind": type(failure).__name__})
            error = error_lines(InternalError("That did not work."))[0]
        finally:
            self._busy.release()
            widget.end_action(error=error)
            if news:
                widget.notify(news)

    def _do(self, action: IdentityAction, settings: ClientSettings) -> str:
        match action:
            case IdentityAction.SIGN_IN:
                self._sign_in(settings)
            case IdentityAction.SHOW_CODE:
                self._begin_login(settings, Flow.DEVICE)
            case IdentityAction.CANCEL:
                self._session.sign_in.cancel()
            case IdentityAction.SIGN_OUT:
                report = shown_detail(self._session.logout(settings))
                self._session.shown.change(
                    settings,
                    lambda state: replace(state, detail=report) if state.status is IdentityStatus.SIGNED_OUT else state,
                )
            case IdentityAction.REFRESH:
                is_new = self._session.renew(settings)
                self._session.fetch_identity(settings)
                return "Token renewed, and the server checked." if is_new else "Server checked."
        return ""

    def _sign_in(self, settings: ClientSettings) -> None:
        self._session.connections.signed_out.discard(settings.profile)
        if self._session.state is None or not self._session.state.has_token:
            try:
                self._session.signed_in(settings)  # another notebook or a terminal may have signed in meanwhile
            except MicromegasError as error:
                if not isinstance(error, LoginRequired) and error.giver is None:
                    raise
            else:
                self._session.fetch_identity(settings)
                return
        self._begin_login(settings, None)

    def _begin_login(self, settings: ClientSettings, preference: str | None) -> None:
        choice = self._session.dependencies.choose_flow(settings, _CLICKED_SHELL, preference)
        if choice.flow is Flow.PASTE:
            raise UsageError(
                "The sign-in flow here asks for an address, which a button cannot do.",
                remedy="Run %micromegas_login in a cell.",
            )
        fallbacks = tuple(flow for flow in choice.fallbacks if flow is not Flow.PASTE)
        self._session.sign_in.begin(settings, replace(choice, fallbacks=fallbacks))


# It stands in for the shell in the choice of a flow: a widget's message does not say that a person is there.
_CLICKED_SHELL = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda _: {"content": {"allow_stdin": True}}))


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one widget, so none of them is outdated."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._buttons = IdentityButtons(session)
        self._widget: IdentityWidget | None = None
        self._offers: list[Handle] = []
        self._handles: deque[Handle] = deque(maxlen=_MAX_HANDLES)

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        lines = identity_lines(state, now=self._session.dependencies.clock.now())
        if not has_kernel(self._shell):
            print("\n".join(lines))  # noqa: T201 - a terminal
            self._print_qr(state)
        elif not is_attended(self._shell):
            # A saved notebook that nobody watched would keep a countdown that ended long ago.
            display(_text_bundle(lines), raw=True)
        else:
            self._show_widget(state)

    def close(self) -> None:
        """Put text in place of the widget in all cells: without its kernel a widget cannot be shown again."""
        widget, self._widget = self._widget, None
        if widget is None:
            return
        state = self._session.state
        if state is not None:
            # Nobody renews it any more, and a sign-in under way is over.
            now = self._session.dependencies.clock.now()
            lines = identity_lines(replace(state, renews=False, offer=None), now=now)
            for handle in self._handles:
                handle.update(_text_bundle(lines), raw=True)
        widget.close()

    def _print_qr(self, state: IdentityState) -> None:
        if state.offer is None or not sys.stdout.isatty():
            return
        from micromegas_jupyter.auth.flows.base import QR_CAPTION, shows_qr, terminal_qr

        if not shows_qr(process_variables(), encoding=sys.stdout.encoding):
            return
        picture = terminal_qr(state.offer.scan_address, columns=shutil.get_terminal_size().columns)
        if picture:
            print("\n".join([QR_CAPTION, *picture]))  # noqa: T201 - a terminal

    def _show_widget(self, state: IdentityState) -> None:
        if self._widget is None:
            self._widget = IdentityWidget(clock=self._session.dependencies.clock, on_press=self._buttons.press)
            self._session.shown.listener = self._follow
        self._widget.apply(state)
        handle = new_display_handle()
        handle.display(self._widget)
        self._handles.append(handle)
        if state.status is IdentityStatus.WAITING:
            self._offers.append(handle)

    def _follow(self, state: IdentityState) -> None:
        if self._widget is None:
            return
        self._widget.apply(state)
        if state.status is not IdentityStatus.WAITING:
            # The text that is saved beside the widget must not offer a sign-in that is over.
            offers, self._offers = self._offers, []
            for handle in offers:
                handle.update(self._widget)


def _text_bundle(lines: Sequence[str]) -> dict[str, str]:
    return {"text/plain": "\n".join(lines), "text/html": lines_as_html(lines)}


_STATIC = Path(__file__).parents[1] / "static"
QR_LABEL = "QR code of the page to open, with the code filled in"
QUIET_MODULES = 4
"""The white frame that a scanner needs (ISO/IEC 18004, section 9.1)."""
# A longer address makes a code that a telephone cannot read off a screen at this size.
_MAX_CHARACTERS = 512
_MAX_CACHED = 8
# Shown as they are.
_STATE_TRAITS = (
    *("name", "email", "subject", "issuer", "through", "group_count", "is_admin", "server", "server_line"),
    *("detail", "renews"),
)


class IdentityWidget(anywidget.AnyWidget):
    """Shows one `IdentityState`; `static/identity.js` draws and counts down.

    Widget state is saved inside notebooks: no trait ever holds a token. Times are durations, because the browser's
    clock and the kernel's differ; `as_of` (the kernel's time) changes whenever they were measured anew.
    """

    # One module for the browser: the words first, which the drawing uses.
    _esm = "\n".join((_STATIC / name).read_text(encoding="utf-8") for name in ("identity_words.js", "identity.js"))
    _css = _STATIC / "identity.css"

    status = traitlets.Unicode("signed_out").tag(sync=True)
    name = traitlets.Unicode("").tag(sync=True)
    email = traitlets.Unicode("").tag(sync=True)
    subject = traitlets.Unicode("").tag(sync=True)
    issuer = traitlets.Unicode("").tag(sync=True)
    through = traitlets.Unicode("").tag(sync=True)
    groups = traitlets.List(traitlets.Unicode()).tag(sync=True)
    group_count = traitlets.Int(0).tag(sync=True)
    is_admin = traitlets.Bool(default_value=False).tag(sync=True)
    server = traitlets.Unicode("").tag(sync=True)
    server_line = traitlets.Unicode("").tag(sync=True)
    detail = traitlets.Unicode("").tag(sync=True)
    flow = traitlets.Unicode("").tag(sync=True)
    start_url = traitlets.Unicode("").tag(sync=True)
    user_code = traitlets.Unicode("").tag(sync=True)
    qr_label = traitlets.Unicode("").tag(sync=True)
    qr_path = traitlets.Unicode("").tag(sync=True)
    qr_side = traitlets.Int(0).tag(sync=True)
    actions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    working = traitlets.Unicode("").tag(sync=True)
    error = traitlets.Unicode("").tag(sync=True)
    renews = traitlets.Bool(default_value=False).tag(sync=True)
    remaining_seconds = traitlets.Float(None, allow_none=True).tag(sync=True)
    renews_in_seconds = traitlets.Float(None, allow_none=True).tag(sync=True)
    since_seconds = traitlets.Float(None, allow_none=True).tag(sync=True)
    as_of = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self, *, clock: Clock, on_press: "Callable[[IdentityAction, IdentityWidget], None]" = lambda *_: None
    ) -> None:
        self._clock = clock
        self._on_press = on_press
        self._apply_lock = Lock()
        self._identity: IdentityState | None = None
        self._status_since = clock.now()
        super().__init__()
        self.on_msg(self._take_message)

    def apply(self, state: IdentityState) -> None:
        """Show `state` from now on, in one message to the browser; any thread."""
        with self._apply_lock, self.hold_sync():
            if self._identity is None or self._identity.status is not state.status:
                self._status_since = self._clock.now()
            self._identity = state
            for name in _STATE_TRAITS:
                setattr(self, name, getattr(state, name) or type(getattr(self, name))())
            self.status = state.status.value
            self.groups = list(state.groups[:MAX_SHOWN_GROUPS])
            self._set_offer(state.offer)
            self.actions = [action.value for action in offered_actions(state)]
            self.error = ""
            for name, value in self._times(state).items():
                setattr(self, name, value)

    def begin_action(self, action: IdentityAction) -> None:
        """Show that something is being done; any thread."""
        with self._apply_lock, self.hold_sync():
            self.working = action.value
            self.error = ""

    def end_action(self, *, error: str = "") -> None:
        """Show that it is done, or with an error's line that it is not; any thread."""
        with self._apply_lock, self.hold_sync():
            self.working = ""
            self.error = error

    def notify(self, news: str) -> None:
        """Show a sentence for a moment, to the pages that are open now; any thread."""
        self.send({"news": news})

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - ipywidgets' own signature
        """Return the traits for a browser, the times measured anew: a page may be loaded again much later."""
        values: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if self._identity is not None and not values.keys().isdisjoint(times := self._times(self._identity)):
            values |= times
        return values

    def _times(self, state: IdentityState) -> dict[str, object]:
        now = self._clock.now()
        has_ended = state.status is IdentityStatus.EXPIRED
        return {
            "remaining_seconds": _seconds_until(state.ends_at, now),
            "renews_in_seconds": _seconds_until(state.renews_at if state.renews else None, now),
            "since_seconds": max((now - self._status_since).total_seconds(), 0.0) if has_ended else None,
            "as_of": now.isoformat(),
        }

    def _set_offer(self, offer: SignInOffer | None) -> None:
        code = None if offer is None else build_qr_code(offer.scan_address)
        self.flow = "" if offer is None else offer.flow.value
        self.start_url = "" if offer is None else offer.address
        self.user_code = "" if offer is None else offer.user_code
        self.qr_label = "" if code is None else QR_LABEL
        self.qr_path = "" if code is None else code.path
        self.qr_side = 0 if code is None else code.side_modules

    def _take_message(self, _widget: object, content: object, _buffers: object) -> None:
        """Pass a button on; a message that is none comes from no page of ours."""
        pressed = content.get("action") if isinstance(content, dict) else None
        if isinstance(pressed, str) and pressed in set(IdentityAction):
            self._on_press(IdentityAction(pressed), self)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None or self._identity is None:
            return shown
        bundle, metadata = shown
        lines = identity_lines(self._identity, now=self._clock.now())
        html = lines_as_html(lines, offer=self._identity.offer)
        return {**bundle, "text/plain": "\n".join(lines), "text/html": html}, metadata


def _seconds_until(time: datetime | None, now: datetime) -> float | None:
    return None if time is None else max((time - now).total_seconds(), 0.0)


class QrCode(NamedTuple):
    """A QR code: its side in modules, with the white frame, and its dark modules as the data of an SVG path."""

    side_modules: int
    path: str


@lru_cache(maxsize=_MAX_CACHED)
def build_qr_code(address: str) -> QrCode | None:
    """Return the code of an address, None for one that is empty or too long to be read off a screen."""
    if not 0 < len(address) <= _MAX_CHARACTERS:
        return None
    import segno

    rows = [bytes(row) for row in segno.make_qr(address, error="m").matrix]
    return QrCode(
        side_modules=len(rows) + 2 * QUIET_MODULES,
        path="".join(_row_path(row, y) for y, row in enumerate(rows, start=QUIET_MODULES)),
    )


def _row_path(row: bytes, y: int) -> str:
    drawn = ""
    x = QUIET_MODULES
    for is_dark, modules in groupby(row):
        width = len(list(modules))
        if is_dark:
            drawn += f"M{x} {y}h{width}v1h-{width}z"
        x += width
    return drawn
