"""The telemetry data model as pure functions: tables, levels, rows, and text that is safe to store."""
