// Command main records values in an explicit and an exponential histogram, and exports after each step.
// Usage: main http|grpc cumulative|delta ENDPOINT SERVICE FILE
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
)

func check[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	protocol, temporality, endpoint, service, file := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	var sent struct {
		Bounds []float64              `json:"bounds"`
		Steps  []map[string][]float64 `json:"steps"`
	}
	if err := json.Unmarshal(check(os.ReadFile(file)), &sent); err != nil {
		log.Fatal(err)
	}
	selected := func(sdk.InstrumentKind) metricdata.Temporality {
		if temporality == "delta" {
			return metricdata.DeltaTemporality
		}
		return metricdata.CumulativeTemporality
	}
	ctx, headers := context.Background(), map[string]string{"authorization": "Bearer collector"}
	var exporter sdk.Exporter
	if protocol == "http" {
		exporter = check(otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(endpoint+"/v1/metrics"),
			otlpmetrichttp.WithHeaders(headers), otlpmetrichttp.WithTemporalitySelector(selected)))
	} else {
		exporter = check(otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(endpoint),
			otlpmetricgrpc.WithHeaders(headers), otlpmetricgrpc.WithTemporalitySelector(selected)))
	}
	provider := sdk.NewMeterProvider(
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
		sdk.WithReader(sdk.NewPeriodicReader(exporter, sdk.WithInterval(time.Hour))),
		sdk.WithView(sdk.NewView(sdk.Instrument{Name: "*.exp"},
			sdk.Stream{Aggregation: sdk.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})),
	)
	meter := provider.Meter("shop.meter")
	explicit := check(meter.Float64Histogram("latency", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(sent.Bounds...)))
	exponential := check(meter.Float64Histogram("latency.exp", metric.WithUnit("s")))
	for _, step := range sent.Steps {
		for route, values := range step {
			attributes := metric.WithAttributes(attribute.String("http.route", route))
			for _, value := range values {
				explicit.Record(ctx, value, attributes)
				exponential.Record(ctx, value, attributes)
			}
		}
		if err := provider.ForceFlush(ctx); err != nil {
			log.Fatal(err)
		}
	} // a shutdown would export the cumulative points again
}
