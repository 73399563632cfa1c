"""The Flight SQL wire without I/O: messages, commands, the framing of Arrow data and error details.

Sockets, services and what a command means to an engine belong to the server and client packages.
"""
