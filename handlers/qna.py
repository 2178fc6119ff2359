"""/api/qna: the most viewed FAQ entries and terms."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from chat.qna import MAX_TOP_K
from handlers.requests import query_integer


async def list_faqs(request: Request) -> Response:
    top_k = query_integer(request, "top_k", default=3, minimum=1, maximum=MAX_TOP_K)
    return Response(await request.state.instance.chat.qna.faqs.to_json(top_k), media_type="application/json")


async def list_terms(request: Request) -> Response:
    top_k = query_integer(request, "top_k", default=6, minimum=1, maximum=MAX_TOP_K)
    return Response(await request.state.instance.chat.qna.terms.to_json(top_k), media_type="application/json")
