"""Query rows: how they arrive, how they are converted, and how they are displayed."""
