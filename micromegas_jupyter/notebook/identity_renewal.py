"""Renews a person's token because they asked for it, and lets what is shown follow.

Renewing in time, without anybody's asking, is `renewing`'s job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError
from micromegas_jupyter.notebook.parts import PersonalProvider

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings


def renew_now(session: NotebookSession, settings: ClientSettings) -> bool:
    """Renew the token of whoever is signed in; returns whether that brought another one.

    A token that is still valid serves on when it cannot be renewed. API keys and service accounts have nothing that a
    person would renew.

    Raises:
        LoginRequired: The sign-in is gone, or the provider has ended it; the token may be valid for a while.
        ProviderUnavailable: The provider does not answer.
        MicromegasError: What else `parts.PersonalProvider.renew` raises.
    """
    try:
        provider = session.connection(settings).provider
    except LoginRequired as error:
        session.note_failure(settings, error)
        raise
    if not isinstance(provider, PersonalProvider):
        return False
    try:
        before = provider.get_token()
        provider.renew()
        is_new = provider.get_token() != before
    except MicromegasError as error:
        _show_failure(session, settings, provider, error)
        raise
    session.note_success(settings, provider)
    return is_new


def _show_failure(
    session: NotebookSession, settings: ClientSettings, provider: PersonalProvider, error: MicromegasError
) -> None:
    try:
        provider.get_token()
    except MicromegasError as worse:
        session.note_failure(settings, worse)
    else:
        if isinstance(error, LoginRequired):
            session.note_success(settings, provider)  # who is signed in is known, and that nothing renews it any more
