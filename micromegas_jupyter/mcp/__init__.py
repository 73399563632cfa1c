"""The Model Context Protocol: messages, tools, and rows as text, for the server and for `micromegas mcp`."""
