"""Strict checks of bodies, paths and queries. What does not fit is collected and raised together as InvalidPayload."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import ClientDisconnect, Request

from common.errors import InvalidPayload, PayloadTooLarge, PayloadTooSlow
from common.ids import read_uuid

BODY_SECONDS = 15.0


def path_uuid(request: Request, name: str) -> UUID:
    found = read_uuid(request.path_params[name])
    if found is None:
        raise InvalidPayload(_error(("path", name), "must be a UUID", "uuid_parsing"))
    return found


def query_integer(request: Request, name: str, default: int, minimum: int, maximum: int) -> int:
    """The last value of a query parameter, as web frameworks take it."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise InvalidPayload(_error(("query", name), "must be an integer", "int_parsing"))
    if len(text) > 18 or not minimum <= int(text) <= maximum:
        raise InvalidPayload(_error(("query", name), f"must be from {minimum} to {maximum}", "out_of_range"))
    return int(text)


class Body:
    """A JSON object from a request's body; fields that are not asked for are ignored."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._errors: list[dict[str, object]] = []

    @classmethod
    async def read(cls, request: Request) -> Body:
        """Raises InvalidPayload, PayloadTooLarge or PayloadTooSlow, the latter two before all of it was read."""
        data = await _read_bytes(request, request.state.instance.settings.max_body_bytes)
        try:
            values = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise InvalidPayload(_error(("body",), "must be valid JSON", "json_invalid")) from None
        if not isinstance(values, dict):
            raise InvalidPayload(_error(("body",), "must be a JSON object", "dict_type"))
        return cls(values)

    def uuid(self, name: str) -> UUID:
        found = read_uuid(self._values.get(name))
        if found is None:
            self._refuse(name, "must be a UUID", "uuid_parsing")
        return found or UUID(int=0)

    def integer(self, name: str) -> int:
        value = self._values.get(name)
        if type(value) is int or (isinstance(value, float) and abs(value) >= 2**63):
            return int(value)  # the parser takes an integer beyond 64 bits for a float
        self._refuse(name, "must be an integer", "int_type")
        return 0

    def boolean_or_null(self, name: str) -> bool | None:
        value = self._values.get(name)
        if name not in self._values or not (value is None or isinstance(value, bool)):
            self._refuse(name, "must be true, false or null", "bool_type")
        return value if isinstance(value, bool) else None

    def check(self) -> None:
        """To be called when all fields have been read. Raises InvalidPayload with everything that did not fit."""
        if self._errors:
            raise InvalidPayload(*self._errors)

    def _refuse(self, name: str, message: str, kind: str) -> None:
        if name not in self._values:
            message, kind = "is required", "missing"
        self._errors.append(_error(("body", name), message, kind))


def _error(loc: tuple[str, ...], message: str, kind: str) -> dict[str, object]:
    return {"loc": loc, "msg": message, "type": kind}


async def _read_bytes(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length) > limit:
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
        raise InvalidPayload(_error(("body",), "did not arrive", "incomplete")) from None
    return bytes(data)
