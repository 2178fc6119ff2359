"""/openapi.json against the running gateway: every path, method and status that it names comes, and nothing else."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.support.backends import Json, tool_answer
from tests.support.chat import new_id, visit
from tests.support.documents import ASYNCAPI, OPENAPI, Schema, examples_in
from tests.support.gateway import UNUSED_SETTINGS, Gateway, environment
from tests.support.http import assert_sentence
from tests.support.keys import bearer
from tests.support.network import TcpProxy
from tests.support.postgres import PostgresServer
from tests.support.processes import ROOT
from tests.support.world import NewWorld, World, add_personas, unique

pytestmark = pytest.mark.anyio

MAX_BODY_BYTES = 65536
SWITCHED_OFF = {"METRICS": "false", "CHAT_PAGE": "false"}
PROVOKED = ("200", "404", "413", "422", "500", "502", "503")
# In other tests: what takes 15 seconds, and what takes limits of its own
ELSEWHERE = {"POST /api/login 429", "POST /api/login 503"}
ELSEWHERE |= {f"POST {path} 408" for path in ("/api/login", "/api/login/persona_id", "/api/chat/feedback")}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ERROR = Schema(OPENAPI["components"]["schemas"]["Error"])


@dataclass(frozen=True)
class Operation:
    """One method of one path, as the document has it."""

    path: str
    method: str

    @property
    def described(self) -> dict[str, Any]:
        """What the document says about it."""
        described: dict[str, Any] = OPENAPI["paths"][self.path][self.method]
        return described

    def parameters(self, place: str) -> dict[str, Any]:
        """The schemas of its parameters in the path or the query."""
        parameters = self.described.get("parameters", [])
        return {parameter["name"]: parameter["schema"] for parameter in parameters if parameter["in"] == place}

    @property
    def body(self) -> dict[str, Any] | None:
        """The media type that stands for its body, with `schema` and examples."""
        body = self.described.get("requestBody")
        return body and dict(body["content"]["application/json"])

    @property
    def inputs(self) -> list[str]:
        """The names of all that it takes."""
        fields = self.body["schema"]["required"] if self.body else []
        return [*self.parameters("path"), *self.parameters("query"), *fields]

    def assert_documented(self, response: httpx.Response) -> None:
        """The status is one that the document names, and the response is what it says of it."""
        status = str(response.status_code)
        assert status in self.described["responses"], f"{self} has no {status}: {response.text}"
        content = self.described["responses"][status].get("content")
        if content is None:
            assert response.content == b""
            return
        media_type = response.headers["content-type"].split(";")[0]
        assert media_type in content, f"{self} {status}"
        value = response.json() if media_type == "application/json" else response.text
        Schema(content[media_type]["schema"]).assert_fits(value)

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


OPERATIONS = [Operation(path, method) for path, methods in OPENAPI["paths"].items() for method in methods]
STATUSES = [(operation, status) for operation in OPERATIONS for status in operation.described["responses"]]
EVERY_OPERATION = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@dataclass(frozen=True)
class Scene:
    """A session that has asked something, and what it may send; `broken` has no databases, metrics and chat page."""

    world: World
    gateway: Gateway
    broken: Gateway
    values: dict[str, Any] = field(default_factory=dict)

    def call(self, operation: Operation, changes: dict[str, Any], on: Gateway, slash: str = "") -> httpx.Response:
        """Call an operation with good values, apart from the changes; a body takes all of these."""
        values = self.values | changes
        return on.http.request(
            operation.method,
            operation.path.format_map(values) + slash,
            params={name: values[name] for name in operation.parameters("query") if name in values},
            json={name: values[name] for name in operation.inputs} | changes if operation.body else None,
            headers=bearer(self.values["session_id"]) if "security" in operation.described else None,
        )


@pytest.fixture(scope="module")
def broken_gateway(postgres: PostgresServer, new_world: NewWorld) -> Iterator[Gateway]:
    """A gateway that was started in good order and has then lost both databases; it shows as little as it can."""
    world = new_world()
    with TcpProxy(postgres.port) as proxy:
        databases = {
            "DATABASE_URL": world.chatdb.url_at(proxy.port),
            "FAQ_DATABASE_URL": world.card_qna.url_at(proxy.port),
        }
        with Gateway(world.settings | databases | SWITCHED_OFF | {"DB_TIMEOUT": "1"}) as gateway:
            proxy.cut()
            yield gateway


@pytest.fixture
async def scene(default_world: World, default_gateway: Gateway, broken_gateway: Gateway) -> AsyncIterator[Scene]:
    question, (persona_id,) = unique("카드 추천"), add_personas(default_world.chatdb, unique("누구"))
    cards = {"answer": "이런 카드요", "card_list": ["카드의정석2", {"name": "트래블"}], "relatedQuestions": ["연회비"]}
    default_world.llm.on(question, tool_answer(cards))
    async with visit(default_gateway) as visitor:
        message_id = (await visitor.ask(question))["message_id"]
        await visitor.ask("그리고")
        values = {"session_id": visitor.session_id, "message_id": message_id, "is_helpful": True}
        yield Scene(default_world, default_gateway, broken_gateway, values | {"persona_id": persona_id})


def changes_for(operation: Operation, status: str) -> list[dict[str, Any]]:
    """What to change about a good call, each alone, so that it comes to this status; `{}` for nothing."""
    queries = operation.parameters("query")
    match status:
        case "200":
            return [{}, *({name: schema[edge]} for name, schema in queries.items() for edge in ("minimum", "maximum"))]
        case "404":
            unknown = {"session_id": new_id(), "message_id": new_id()}
            return [unknown, {"persona_id": 2**40}] if "persona_id" in operation.inputs else [unknown]
        case "413":
            return [{"more": "x" * MAX_BODY_BYTES}]
        case "422":
            beyond = [{name: schema["minimum"] - 1} for name, schema in queries.items()]
            beyond += [{name: schema["maximum"] + 1} for name, schema in queries.items()]
            return [*({name: "none"} for name in operation.inputs), *beyond]
        case "500" | "502" | "503":
            return [{}]
    raise AssertionError(f"{operation}: no way to provoke {status}")


def provoke(scene: Scene, operation: Operation, status: str) -> Iterator[httpx.Response]:
    """Calls that all have to come to this status."""
    on = scene.gateway
    if status in ("500", "503") or (operation.path, status) == ("/metrics", "404"):
        on = scene.broken
    if status == "502":
        scene.world.mcp.on_session(scene.values["session_id"], Json({}, 500))
    for changes in changes_for(operation, status):
        for slash in ("", "/"):
            yield scene.call(operation, changes, on, slash)
    if operation.path == "/":
        yield scene.call(operation, {}, scene.broken)


@pytest.mark.parametrize(
    ("operation", "status"),
    [pytest.param(*case, id=f"{case[0]} {case[1]}") for case in STATUSES if f"{case[0]} {case[1]}" not in ELSEWHERE],
)
async def test_every_documented_status_comes_as_documented(scene: Scene, operation: Operation, status: str) -> None:
    responses = list(provoke(scene, operation, status))
    assert [str(response.status_code) for response in responses] == [status] * len(responses)
    for response in responses:
        operation.assert_documented(response)


@EVERY_OPERATION
async def test_no_other_status_comes_whatever_fails(scene: Scene, operation: Operation) -> None:
    """What brings one operation to an error is tried with all of them."""
    for status in PROVOKED:
        for response in provoke(scene, operation, status):
            operation.assert_documented(response)


@EVERY_OPERATION
def test_no_other_status_comes_whatever_is_sent(default_gateway: Gateway, operation: Operation) -> None:
    """Bodies, queries and headers that no client of ours sends; and the document's own examples, tried out."""
    path = operation.path.format_map(dict.fromkeys(operation.parameters("path"), new_id()))
    bodies = [b"", b"none", b"\xff", b"[]", b"null", b"[" * 5000, b'{"session_id": {}, "message_id": 1}']
    bodies += [json.dumps(value).encode() for value, _ in examples_in(operation.body)]
    queries = ["limit=&top_k=", "limit=1e2&top_k=1e2", "limit=0&limit=1&top_k=0&top_k=1", "top_k=%00&limit=%ff"]
    headers = [{"content-type": "text/plain"}, {"accept": "image/png"}, {"content-type": "multipart/form-data"}]
    for body in bodies if operation.body else [b""]:
        operation.assert_documented(default_gateway.http.request(operation.method, path, content=body))
    for query in queries:
        operation.assert_documented(default_gateway.http.request(operation.method, f"{path}?{query}"))
    for header in headers:
        operation.assert_documented(default_gateway.http.request(operation.method, path, headers=header))


@pytest.mark.parametrize("path", OPENAPI["paths"])
def test_methods_that_are_not_documented_are_refused(default_gateway: Gateway, path: str) -> None:
    """With 405, an error like all others, and an `Allow` header with the methods that are."""
    documented = {method.upper() for method in OPENAPI["paths"][path]}
    for method in set(METHODS) - documented:
        for slash in ("", "/"):
            response = default_gateway.http.request(method, path.format_map({"session_id": new_id()}) + slash)
            assert_sentence(response, 405)
            assert set(response.headers["allow"].split(", ")) - {"HEAD"} == documented


def test_routes_and_documents_are_the_same() -> None:
    """Only the files of the pages, which are mounted below /web, are nobody's interface."""
    script = (
        "import gateway\n"
        "for route in gateway.ROUTES:\n"
        "    kind = type(route).__name__\n"
        "    for method in getattr(route, 'methods', None) or [kind]:\n"
        "        print(method, route.path)"
    )
    command = [sys.executable, "-c", script]
    output = subprocess.check_output(command, cwd=ROOT, env=environment(UNUSED_SETTINGS), text=True)
    routes = {line for line in output.splitlines() if not line.startswith("HEAD ")}
    sockets = {f"WebSocketRoute {channel['address']}" for channel in ASYNCAPI["channels"].values()}
    assert routes == {str(operation) for operation in OPERATIONS} | sockets | {"Mount /web"}


def test_every_example_fits_its_schema() -> None:
    examples = list(examples_in(OPENAPI))
    assert len(examples) > len(OPERATIONS)
    for example, schema in examples:
        schema.assert_fits(example)


def test_every_operation_has_a_name_and_a_summary_of_its_own() -> None:
    for key in ("operationId", "summary"):
        values = [operation.described[key] for operation in OPERATIONS]
        assert len(set(values)) == len(values)


def test_what_is_served_is_what_these_tests_read(default_gateway: Gateway) -> None:
    for name in ("openapi.json", "asyncapi.json"):
        assert default_gateway.http.get(f"/{name}").content == (ROOT / "web" / name).read_bytes()
