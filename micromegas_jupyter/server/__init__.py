"""The Flight SQL server: access, responses, and limits."""
