"""`python -m micromegas_jupyter.cli`: the same as the `micromegas` command."""

from micromegas_jupyter.cli.main import main

if __name__ == "__main__":
    main()
