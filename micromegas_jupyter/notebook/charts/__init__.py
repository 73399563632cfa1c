"""Charts of a query's rows, as Vega-Lite."""

KINDS = ("line", "point", "bar", "area", "hist")
