"""`python -m micromegas_jupyter.cli.query_processes`: how older programs call `micromegas processes`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["processes", *sys.argv[1:]])
