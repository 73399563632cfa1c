"""Worker processes that answer calls on one port, and the supervisor that starts, watches and replaces them.

`stack` joins them to a server, `supervisor` watches, `program` is what runs in a worker.
"""
