"""Environment variables and configuration files become frozen settings, or an error that names the key."""
