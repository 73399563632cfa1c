"""The Flight SQL client: queries, parameters, cancellation, and errors with a remedy."""
