"""A process of its own that ends while its token is being renewed in the background: `python … FILE`.

It ends when it reads a line; until then it does nothing but renew.
"""

import sys

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens import manager
from micromegas_jupyter.auth.tokens.manager import BackgroundRenewal
from micromegas_jupyter.core.system import SYSTEM_CLOCK


def main() -> None:
    manager.STOP_WAIT_SECONDS = 60.0  # for a provider on a busy machine
    provider = OidcAuthProvider.from_file(sys.argv[1])
    BACKGROUND.append(BackgroundRenewal(provider, clock=SYSTEM_CLOCK))
    PROVIDERS.append(provider)
    BACKGROUND[0].start()
    sys.stdin.readline()


# Still referred to when the program ends, as in a notebook.
BACKGROUND: list[BackgroundRenewal] = []
PROVIDERS: list[OidcAuthProvider] = []

main()
