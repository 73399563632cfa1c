"""A pool of processes, each of which plans and runs one statement, so that statements can't affect each other."""
