"""`python -m micromegas_jupyter.cli.query_process_log`: how older programs call `micromegas process-log`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["process-log", *sys.argv[1:]])
