"""A notebook's log view: lines, their volume over time, patterns, and following."""
