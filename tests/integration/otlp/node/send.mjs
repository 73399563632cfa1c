// Records values in an explicit and an exponential histogram, and exports after each step.
// Usage: node send.mjs proto|http cumulative|delta URL SERVICE FILE, where http sends JSON.
import { readFileSync } from "node:fs";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AggregationType, MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";

const [protocol, temporality, url, service, file] = process.argv.slice(2);
const { bounds, steps } = JSON.parse(readFileSync(file, "utf8"));
const { OTLPMetricExporter } = await import(`@opentelemetry/exporter-metrics-otlp-${protocol}`);
const { AggregationTemporalityPreference } = await import("@opentelemetry/exporter-metrics-otlp-http");
const exporter = new OTLPMetricExporter({
  url: `${url}/v1/metrics`,
  headers: { Authorization: "Bearer collector" },
  temporalityPreference: AggregationTemporalityPreference[temporality.toUpperCase()],
});
const provider = new MeterProvider({
  resource: resourceFromAttributes({ "service.name": service }),
  readers: [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })],
  views: [{ instrumentName: "*.exp", aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM } }],
});
const meter = provider.getMeter("shop.meter");
const instruments = [
  meter.createHistogram("latency", { unit: "s", advice: { explicitBucketBoundaries: bounds } }),
  meter.createHistogram("latency.exp", { unit: "s" }),
];
for (const step of steps) {
  for (const [route, values] of Object.entries(step)) {
    for (const value of values) instruments.forEach((one) => one.record(value, { "http.route": route }));
  }
  await provider.forceFlush();
}
process.exit(0); // a shutdown would export the cumulative points again
