"""OpenID Connect without I/O: documents, requests, tokens and their rules as pure functions.

`now` and randomness are arguments; calling a provider is `http`'s job, and what to do with a result is the caller's.
"""
