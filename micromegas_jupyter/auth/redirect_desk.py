"""Where a Jupyter server's requests about sign-ins by redirect come in: finds the sign-in, answers at once.

How requests reach a kernel is `notebook`'s; what they look like is `redirect.messages`'s.
"""

import hmac
import threading
from collections import OrderedDict

from micromegas_jupyter.auth.redirect_login import RedirectLogin
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.redirect import Ending
from micromegas_jupyter.redirect.messages import (
    Accepted,
    AnswerRequest,
    Ended,
    EndingRequest,
    Reply,
    StartRequest,
    StillWorking,
    Unknown,
    parse_request,
    reply_content,
)
from micromegas_jupyter.redirect.redirect_address import is_callback_address
from micromegas_jupyter.redirect.routing import START_PATH, build_name, digest_of

MAX_SIGN_INS = 20
"""How many sign-ins a kernel answers for, those that have ended included; the oldest is forgotten."""


class RedirectDesk:
    """The sign-ins of one kernel. Safe to use from several threads; nothing here waits or calls anybody.

    Its lock covers which sign-ins there are.

    Args:
        kernel_id: As the Jupyter server knows this kernel.
        base_address: What the server's pages lie below, as a path or as an address; ends with a slash.
    """

    def __init__(self, *, kernel_id: str, base_address: str) -> None:
        self.kernel_id = kernel_id
        self._base_address = base_address
        self._lock = threading.Lock()
        # By the digest of the start address's name: the name itself is not kept.
        self._logins: OrderedDict[str, RedirectLogin] = OrderedDict()

    def state_prefix(self) -> str:
        """Return what each state begins with, so that the server finds this kernel."""
        return f"{self.kernel_id}."

    def start_address(self, random: str) -> tuple[str, str]:
        """Return the name of a new start address, and the address as far as this kernel knows it.

        Args:
            random: The name's random part.
        """
        name = build_name(self.kernel_id, random)
        return name, f"{self._base_address}{START_PATH}{name}"

    def open(self, name: str, login: RedirectLogin) -> None:
        """Answer for a sign-in from now on.

        Args:
            name: Its start address's name.
            login: The sign-in.
        """
        with self._lock:
            self._logins[digest_of(name)] = login
            forgotten = self._logins.popitem(last=False)[1] if len(self._logins) > MAX_SIGN_INS else None
        if forgotten is not None:
            forgotten.stop()

    def reply_to(self, content: object) -> dict[str, object]:
        """Return the reply to a request; what is unknown, replayed, expired or malformed gets the same one."""
        return reply_content(self._reply(content))

    def _reply(self, content: object) -> Reply:
        match parse_request(content):
            case StartRequest(name=name, redirect_uri=redirect_uri):
                return self._start(name, redirect_uri)
            case AnswerRequest(query=query):
                return self._take(query)
            case EndingRequest(state_digest=state_digest):
                return self._ending(state_digest)
            case None:
                return Unknown()

    def _start(self, name: str, redirect_uri: str) -> Reply:
        with self._lock:
            login = self._logins.get(digest_of(name))
        if login is None or not is_callback_address(redirect_uri):
            return Unknown()
        try:
            return login.start(redirect_uri) or Unknown()
        except MicromegasError as error:
            return Ended(ending=Ending.failed(what=error.what, remedy=error.remedy))

    def _take(self, query: Secret) -> Reply:
        return Accepted() if any(login.take(query) for login in self._all()) else Unknown()

    def _ending(self, state_digest: str) -> Reply:
        for login in self._all():
            if hmac.compare_digest(login.state_digest or "", state_digest):
                return StillWorking() if login.ending is None else Ended(ending=login.ending)
        return Unknown()

    def _all(self) -> list[RedirectLogin]:
        with self._lock:
            return list(self._logins.values())
