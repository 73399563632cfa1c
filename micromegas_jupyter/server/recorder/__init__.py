"""The server's own telemetry: its log, its measurements, and its liveness, recorded in the lake."""
