"""Parses environment variables and configuration files into frozen settings; errors include the key."""
