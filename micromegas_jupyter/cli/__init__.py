"""The `micromegas` command: arguments in, exit codes out. The work is done by `wiring` and `demo`."""
