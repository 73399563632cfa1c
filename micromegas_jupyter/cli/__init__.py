"""The `micromegas` command: arguments in, exit codes out. What a command does lies in `wiring` and `demo`."""
