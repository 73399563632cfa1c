"""SQL functions that this package adds: who calls, and denied queries."""
