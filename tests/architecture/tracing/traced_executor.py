"""Preloaded into executors, so that they write which files they use."""

import sitecustomize

sitecustomize.trace_executor()
