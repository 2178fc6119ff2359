"""Strict checks of bodies, paths and queries, all problems reported together; responses, and the table of errors."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from common.errors import BODY_TOO_LARGE, BODY_TOO_SLOW, GatewayError
from common.ids import read_uuid

BODY_SECONDS = 15.0


class InvalidPayload(GatewayError):
    """A body, path or query that does not fit; `detail` lists what is wrong with it."""

    status_code = 422


def path_uuid(request: Request, name: str) -> UUID:
    found = read_uuid(request.path_params[name])
    if found is None:
        raise InvalidPayload([_problem("must be a UUID", "uuid_parsing", "path", name)])
    return found


def query_integer(request: Request, name: str, default: int, minimum: int, maximum: int) -> int:
    """The last value of a query parameter, as web frameworks take it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidPayload([_problem("must be an integer", "int_parsing", "query", name)])
    if len(text) > 18 or not minimum <= int(text) <= maximum:
        raise InvalidPayload([_problem(f"must be from {minimum} to {maximum}", "out_of_range", "query", name)])
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
    if value is None or isinstance(value, bool):
        return value
    raise ValueError("must be true, false or null", "bool_type")


async def read_body(request: Request, **wanted: Callable[[object], Any]) -> list[Any]:
    """The wanted fields of a JSON object, in their order; other fields are ignored.

    Raises InvalidPayload, or HTTPException before all of a body that is too large or too slow was read.
    """
    data = await _read_bytes(request, request.state.instance.settings.max_body_bytes)
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise InvalidPayload([_problem("must be valid JSON", "json_invalid", "body")]) from None
    if not isinstance(values, dict):
        raise InvalidPayload([_problem("must be a JSON object", "dict_type", "body")])
    found, problems = [], []
    for name, read in wanted.items():
        try:
            found.append(read(values.get(name)))
        except ValueError as error:
            message, kind = error.args if name in values else ("is required", "missing")
            problems.append(_problem(message, kind, "body", name))
    if problems:
        raise InvalidPayload(problems)
    return found


async def _read_bytes(request: Request, limit: int) -> bytes:
    """Closes the connection where the rest of the body is not read."""
    too_large = HTTPException(413, BODY_TOO_LARGE, {"connection": "close"})
    length = request.headers.get("content-length", "0")
    if not re.fullmatch("[0-9]{1,18}", length) or int(length) > limit:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > limit:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, BODY_TOO_SLOW, too_large.headers) from None
    except ClientDisconnect:
        raise InvalidPayload([_problem("did not arrive", "incomplete", "body")]) from None
    return bytes(data)


def _problem(message: str, kind: str, *loc: str) -> dict[str, object]:
    return {"loc": loc, "msg": message, "type": kind}


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content, default=str), status, headers, media_type="application/json")


def _error_response(request: Request, error: GatewayError | HTTPException) -> Response:
    return json_response({"detail": error.detail}, error.status_code, error.headers)


EXCEPTION_HANDLERS: dict[Any, Callable[..., Any]] = {
    GatewayError: _error_response,
    HTTPException: _error_response,
    Exception: lambda request, error: json_response({"detail": "Internal Server Error"}, 500),
}
