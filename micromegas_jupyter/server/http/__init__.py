"""The HTTP listener: OpenTelemetry exports, metrics, health, agents, and queries."""
