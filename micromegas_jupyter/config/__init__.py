"""Environment variables and configuration files become frozen settings, or an error that names the key.

Text in, values out. The formats are upstream's with optional additions, so that one environment serves either
implementation.
"""
