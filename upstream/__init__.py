"""The LLM server and the MCP server: call, check, translate."""
