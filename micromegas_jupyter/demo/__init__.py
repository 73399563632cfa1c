"""A whole system on one machine, to try everything with nothing else installed."""
