"""A process of its own that takes up a token file and prints the token that it gets: `python … FILE`.

It waits for a line on standard input, so that several of them start to ask at the same moment.
"""

import sys

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.errors import MicromegasError


def main() -> None:
    provider = OidcAuthProvider.from_file(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(provider.get_token(), flush=True)
    except MicromegasError as error:
        print(type(error).__name__, flush=True)


main()
