"""OpenID Connect without I/O: documents, requests, tokens, and their rules as pure functions."""
