"""The `micromegas` command: takes arguments and returns exit codes. The work is done by `wiring` and `demo`."""
