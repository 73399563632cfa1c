"""Charts of a query's rows, as Vega-Lite."""

KINDS = ("line", "area", "bar", "hist", "heat", "point")
