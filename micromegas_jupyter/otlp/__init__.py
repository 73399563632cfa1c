"""OpenTelemetry's protocol (OTLP): requests of exporters as rows of the data model."""
