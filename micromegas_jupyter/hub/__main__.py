"""`python -m micromegas_jupyter.hub`: the service, started by the Hub with the environment that `configure` set."""

import sys

from micromegas_jupyter.hub.application import main

if __name__ == "__main__":
    sys.exit(main())
