"""The OpenTelemetry protocol (OTLP): exporters' requests as rows of the data model."""
