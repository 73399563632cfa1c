"""A whole system on one machine, to try everything with nothing else installed.

It holds the identity provider and what fills the lake; joining them into a running stack is `demo.stack`.
"""
