"""Notices that a person is signed in in another way while a sign-in waits here; what follows is the session's.

Two notebooks that are run at once both offer a sign-in: the person follows one link, and both go on.
"""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.parts import PersonalProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.notebook.parts import Login, Parts
    from micromegas_jupyter.settings import ClientSettings

LOOK_SECONDS = 1.0
"""The pause between two looks at what is stored: a file of this machine, no call to anybody."""


def watch_for_sign_in(login: Login, take: Callable[[], bool], *, pause_seconds: float = LOOK_SECONDS) -> None:
    """Call `take` from time to time, on a thread of its own, until it returns true or the sign-in has ended.

    Args:
        login: The sign-in that waits here.
        take: Looks, and takes what there is; whether there was something.
        pause_seconds: The pause before each look.
    """
    over = threading.Event()
    login.on_done(lambda *_: over.set())

    def look() -> None:
        while not over.wait(pause_seconds) and not take():
            pass

    # ipykernel finds the cell that a display belongs to in a context variable.
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(look,), name="micromegas-elsewhere", daemon=True).start()


def stored_meanwhile(parts: Parts, settings: ClientSettings) -> PersonalProvider | None:
    """Return a person's stored sign-in whose token is still good; asks nobody, and None for all that is in the way."""
    try:
        provider = parts.stored_provider(settings)
        if not isinstance(provider, PersonalProvider):
            return None
        ends_at = provider.identity().expires_at
    except MicromegasError:
        return None
    # One that had ended before this sign-in was begun is no news.
    return provider if ends_at > parts.clock.now() else None


def given_now(parts: Parts, settings: ClientSettings) -> PersonalProvider | None:
    """Return what signs the person in without a click, as JupyterHub does after a sign-in there; None when it does not.

    It is asked, which a cell that would have to wait may do.
    """
    try:
        provider = parts.stored_provider(settings)
        if provider is None or not getattr(provider, "through", ""):
            return None
        provider.get_token()
    except MicromegasError:
        return None
    return provider if isinstance(provider, PersonalProvider) else None
