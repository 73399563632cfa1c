"""The Model Context Protocol without I/O: messages, tools, and rows as text; shared by the server and the command."""
