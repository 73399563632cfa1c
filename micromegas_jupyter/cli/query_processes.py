"""What older programs call, by `python -m`, instead of `micromegas processes`."""

import sys

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main(["processes", *sys.argv[1:]])
