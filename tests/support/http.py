"""What every error of the HTTP interface looks like."""

import re
from typing import Any

import httpx

# What would tell a stranger how the program is built: SQL, stacks, hosts, libraries.
_INTERNALS = re.compile(
    r"select |insert |update |relation|column|asyncpg|postgres|traceback|\.py|127\.0\.0\.1|localhost"
    r"|exception|starlette|uvicorn|httpx|aiohttp|orjson|errno|socket|connection",
    re.IGNORECASE,
)

_PARTS = re.compile(r"Traceback|orjson|asyncpg|starlette|\.py\b|File ")


def assert_sentence(response: httpx.Response, status: int) -> str:
    """The response is an error of this status, `{"detail": <a sentence without internals>}`; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"].split(";")[0] == "application/json"
    body = response.json()
    assert list(body) == ["detail"], body
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail.strip()
    assert not _INTERNALS.search(detail), detail
    return detail


def assert_invalid(response: httpx.Response, *places: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The response is a 422 whose list names these places (`loc`), perhaps among others; returns the list."""
    assert response.status_code == 422, f"{response.status_code} {response.text}"
    assert not _PARTS.search(response.text), response.text
    body = response.json()
    assert list(body) == ["detail"], body
    errors: list[dict[str, Any]] = body["detail"]
    assert isinstance(errors, list)
    assert errors
    for error in errors:
        assert {"loc", "msg", "type"} <= set(error), error
        assert isinstance(error["loc"], list)
        assert error["loc"][0] in ("body", "query", "path"), error
        assert isinstance(error["msg"], str)
        assert error["msg"]
        assert isinstance(error["type"], str)
        assert error["type"]
    found = [tuple(error["loc"]) for error in errors]
    assert set(places) <= set(found), f"{places} not all in {found}"
    return errors
