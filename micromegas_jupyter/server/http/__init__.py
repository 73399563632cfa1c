"""The HTTP listener: OpenTelemetry exports, metrics, health."""
