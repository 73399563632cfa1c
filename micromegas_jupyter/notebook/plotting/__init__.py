"""Vega-Lite charts of a query's rows."""

KINDS = ("line", "area", "bar", "hist", "heat", "point")
