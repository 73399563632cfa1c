"""Delta tables in a directory or bucket (snapshots, durable writes, maintenance), and directories of other files.

`telemetry` defines the tables of the data model, and `engine` runs queries over them.
"""
