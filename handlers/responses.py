"""JSON responses, and the table of exceptions."""

from collections.abc import Callable
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from common.errors import GatewayError, InvalidPayload


def json_response(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content, default=str), status, media_type="application/json")


def _gateway_error(request: Request, error: GatewayError) -> Response:
    response = json_response({"detail": error.detail}, error.status)
    if error.status in (408, 413):
        response.headers["connection"] = "close"  # the rest of the body is not read
    return response


def _invalid_payload(request: Request, error: InvalidPayload) -> Response:
    return json_response({"detail": error.errors}, 422)


def _http_exception(request: Request, error: HTTPException) -> Response:
    response = json_response({"detail": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _unforeseen(request: Request, error: Exception) -> Response:
    return json_response({"detail": "Internal Server Error"}, 500)


EXCEPTION_HANDLERS: dict[Any, Callable[..., Any] | ExceptionHandler] = {
    GatewayError: _gateway_error,
    InvalidPayload: _invalid_payload,
    HTTPException: _http_exception,
    Exception: _unforeseen,
}
