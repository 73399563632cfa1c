"""The Flight SQL server: who may call, what is answered, within which limits.

Validator, executors and lake are passed in; `wiring` joins them.
"""
