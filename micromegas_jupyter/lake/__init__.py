"""Tables on storage: durable appends, merged files, bounded age and size, and a listing that is cheap.

What the tables are is defined in `telemetry`; `engine` runs queries over them.
"""
