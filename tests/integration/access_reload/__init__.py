"""Reload of keys and configuration with real files, threads and processes."""
