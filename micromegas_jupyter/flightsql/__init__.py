"""The Flight SQL wire without I/O: messages, commands, the framing of Arrow data and error details."""
