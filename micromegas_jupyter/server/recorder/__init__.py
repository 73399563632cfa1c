"""The server's own telemetry: its log, its measurements and that it is alive, recorded into the lake."""
