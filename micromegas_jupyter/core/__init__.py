"""What all packages share: protocols, the system's clock and randomness, strict JSON, private files, HTTP."""
