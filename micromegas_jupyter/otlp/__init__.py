"""The OpenTelemetry protocol (OTLP): converts exporters' requests to rows of the data model."""
