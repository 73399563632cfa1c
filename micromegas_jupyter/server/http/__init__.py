"""The HTTP listener: exports of OpenTelemetry, metrics, health."""
