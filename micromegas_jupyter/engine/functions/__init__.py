"""SQL functions that this package adds."""
