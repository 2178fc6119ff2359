"""/api/health: alive; /api/health/ready: able to serve, part by part."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from handlers.responses import json_response


async def get_health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def get_readiness(request: Request) -> Response:
    checks = await request.state.instance.check()
    is_ready = all(reason is None for reason in checks.values())
    content = {
        "status": "ready" if is_ready else "not ready",
        "checks": {name: {"ok": reason is None, "reason": reason} for name, reason in checks.items()},
    }
    return json_response(content, 200 if is_ready else 503)
