"""What older programs call, by `python -m`, instead of `micromegas process-log`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["process-log", *sys.argv[1:]])
