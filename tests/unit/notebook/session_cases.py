"""Settings without a sign-in, and what a session shows."""

from dataclasses import replace

from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityStatus
from tests.fakes.notebook_world import SETTINGS

WITHOUT_SIGN_IN = replace(SETTINGS, issuer=None, client_id=None)


def shown(session: NotebookSession) -> IdentityStatus | None:
    return None if session.state is None else session.state.status
