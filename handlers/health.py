"""/api/health: alive; /api/health/ready: able to serve, part by part; /metrics: how well."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from common import metrics
from handlers.responses import json_response
from service.readiness import SHOWN_ONLY


async def get_health(request: Request) -> Response:
    return Response(b'{"status":"ok"}', media_type="application/json")


async def get_readiness(request: Request) -> Response:
    checks = await request.state.instance.check()
    is_ready = all(reason is None for name, reason in checks.items() if name not in SHOWN_ONLY)
    content = {
        "status": "ready" if is_ready else "not ready",
        "checks": {name: {"ok": reason is None, "reason": reason} for name, reason in checks.items()},
    }
    return json_response(content, 200 if is_ready else 503)


async def get_metrics(request: Request) -> Response:
    if not request.state.instance.settings.metrics:
        raise HTTPException(404)
    return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)
