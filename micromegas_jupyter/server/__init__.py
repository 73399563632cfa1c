"""The Flight SQL server: who may call, what is answered, within which limits."""
