"""The client of a Flight SQL server: queries, parameters, cancellation, errors with a remedy."""
