"""The log view of a notebook: lines, their volume over time, patterns, and following."""
