"""Delta tables in a folder or a bucket: snapshots, durable writes, maintenance; and folders of others' tables.

What the tables are is defined in `telemetry`; `engine` runs queries over them.
"""
