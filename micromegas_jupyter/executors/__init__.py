"""A pool of processes, each of which plans and runs one statement, to isolate statements from each other."""
