"""`python -m micromegas_jupyter.cli.query_process_metrics`: how older programs call `micromegas process-metrics`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["process-metrics", *sys.argv[1:]])
