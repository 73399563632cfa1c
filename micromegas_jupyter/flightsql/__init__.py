"""The Flight SQL wire format without I/O: messages, commands, framing of Arrow data, and error details."""
