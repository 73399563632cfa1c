"""The program of a worker process of `micromegas serve`: logs as the command does, and serves."""

import os

from micromegas_jupyter.assembly.workers.program import main
from micromegas_jupyter.cli.server_log import log_as_server

if __name__ == "__main__":
    log_as_server(os.environ)
    main()
