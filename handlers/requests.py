"""Strict checks of bodies, paths and queries, all problems reported together; responses, and the table of errors."""

import asyncio
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from common.errors import GatewayError, InvalidPayload, PayloadTooLarge, PayloadTooSlow
from common.ids import read_uuid

BODY_SECONDS = 15.0
MISSING = object()


def path_uuid(request: Request, name: str) -> UUID:
    found = read_uuid(request.path_params[name])
    if found is None:
        raise InvalidPayload(_problem(("path", name), "must be a UUID", "uuid_parsing"))
    return found


def query_integer(request: Request, name: str, default: int, minimum: int, maximum: int) -> int:
    """The last value of a query parameter, as web frameworks take it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidPayload(_problem(("query", name), "must be an integer", "int_parsing"))
    if len(text) > 18 or not minimum <= int(text) <= maximum:
        raise InvalidPayload(_problem(("query", name), f"must be from {minimum} to {maximum}", "out_of_range"))
    return int(text)


# Fields of a body: each gives the value, or raises ValueError with a sentence and its type.


def uuid(value: object) -> UUID:
    found = read_uuid(value)
    if found is None:
        raise ValueError("must be a UUID", "uuid_parsing")
    return found


def integer(value: object) -> int:
    if type(value) is int or (isinstance(value, float) and abs(value) >= 2**63):
        return int(value)  # the parser takes an integer beyond 64 bits for a float
    raise ValueError("must be an integer", "int_type")


def optional_boolean(value: object) -> bool | None:
    if value is MISSING or value is None or isinstance(value, bool):
        return value if isinstance(value, bool) else None
    raise ValueError("must be true, false or null", "bool_type")


async def read_body(request: Request, **wanted: Callable[[object], Any]) -> list[Any]:
    """The wanted fields of a JSON object, in their order; other fields are ignored.

    Raises InvalidPayload, and PayloadTooLarge or PayloadTooSlow before all of the body was read.
    """
    data = await _read_bytes(request, request.state.instance.settings.max_body_bytes)
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise InvalidPayload(_problem(("body",), "must be valid JSON", "json_invalid")) from None
    if not isinstance(values, dict):
        raise InvalidPayload(_problem(("body",), "must be a JSON object", "dict_type"))
    found, problems = [], []
    for name, read in wanted.items():
        try:
            found.append(read(values.get(name, MISSING)))
        except ValueError as error:
            message, kind = error.args if name in values else ("is required", "missing")
            problems.append(_problem(("body", name), message, kind))
    if problems:
        raise InvalidPayload(*problems)
    return found


async def _read_bytes(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > limit:
        raise PayloadTooLarge
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limit:
                    raise PayloadTooLarge
    except TimeoutError:
        raise PayloadTooSlow from None
    except ClientDisconnect:
        raise InvalidPayload(_problem(("body",), "did not arrive", "incomplete")) from None
    return bytes(data)


def _problem(loc: tuple[str, ...], message: str, kind: str) -> dict[str, object]:
    return {"loc": loc, "msg": message, "type": kind}


def json_response(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content, default=str), status, media_type="application/json")


def _gateway_error(request: Request, error: GatewayError) -> Response:
    response = json_response({"detail": error.detail}, error.status)
    if isinstance(error, PayloadTooLarge | PayloadTooSlow):
        response.headers["connection"] = "close"  # the rest of the body is not read
    return response


def _http_exception(request: Request, error: HTTPException) -> Response:
    response = json_response({"detail": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS: dict[Any, Callable[..., Any] | ExceptionHandler] = {
    GatewayError: _gateway_error,
    InvalidPayload: lambda request, error: json_response({"detail": error.problems}, 422),
    HTTPException: _http_exception,
    Exception: lambda request, error: json_response({"detail": "Internal Server Error"}, 500),
}
