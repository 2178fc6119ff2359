"""The stand-in for the MCP tool server, made with the official SDK: the tool of demo/mcp_server.py as a tool of MCP.

    GATEWAY_URL=http://127.0.0.1:8001 DATABASE_URL=postgresql://… \
        .venv-mcp2/bin/python -m uvicorn demo.mcp_native:app --port 8011

The gateway calls it with MCP_PROTOCOL=mcp and MCP_SERVER_URL=http://127.0.0.1:8011/mcp.
"""

from typing import Any

from mcp.server.mcpserver import Context, MCPServer

from demo import mcp_server
from demo.mcp_server import health, load_persona, login_request, recommendation, tied_persona_id

server = MCPServer("demo-cards", log_level="WARNING", lifespan=mcp_server.lifespan)


async def consumption_recommend(session_id: str, persona_id: int, ctx: Context) -> dict[str, Any]:
    """Recommends cards by what the persona that is logged in spends money on."""
    state = ctx.request_context.lifespan_context
    persona = await load_persona(state["chatdb"], await tied_persona_id(state["gateway"], session_id))
    return recommendation(persona) if persona else login_request()


server.add_tool(consumption_recommend)
app = server.streamable_http_app()
app.add_route("/health", health)
