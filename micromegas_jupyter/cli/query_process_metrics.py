"""What older programs call, by `python -m`, instead of `micromegas process-metrics`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["process-metrics", *sys.argv[1:]])
