"""Origins are compared exactly, and what a proxy says of itself counts only if the proxy is trusted."""

from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.chat import visit
from tests.support.gateway import Gateway, Start
from tests.support.http import assert_sentence
from tests.support.world import NewWorld, World

pytestmark = pytest.mark.anyio

ALLOWED = "https://chat.example.com"
ALSO_ALLOWED = "http://chat.example.com:8080"
PROXY_ADDRESS = "127.0.0.1"  # of this test, as the gateway sees it
OTHER_NETWORK = "10.0.0.0/8"


@pytest.fixture(scope="module")
def world(new_world: NewWorld) -> World:
    return new_world()


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    """A gateway that trusts the proxy, which is the default for one on the same machine."""
    with Gateway(world.settings | {"FRONTEND_HOST": f"{ALLOWED},{ALSO_ALLOWED}"}, start="python") as gateway:
        yield gateway


@pytest.fixture(scope="module", params=["uvicorn", "python"])
def trusting_others(world: World, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    """A gateway that trusts proxies, but not the one that these tests are."""
    start: Start = request.param
    with Gateway(world.settings | {"TRUSTED_PROXIES": OTHER_NETWORK}, start=start) as gateway:
        yield gateway


async def status(gateway: Gateway, origin: str, **headers: str) -> int:
    """What a handshake with this origin comes to: 101 with a session, or the status of the refusal."""
    more = {"Origin": origin} | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with visit(gateway, additional_headers=more) as visitor:
            assert visitor.session_id
            return 101
    except InvalidStatus as refusal:
        body = bytes(refusal.response.body or b"")
        assert_sentence(
            httpx.Response(refusal.response.status_code, headers=refusal.response.headers, content=body), 403
        )
        assert "server" not in refusal.response.headers
        return 403


async def test_the_list_counts_scheme_host_and_port_and_nothing_less(gateway: Gateway) -> None:
    for origin in (ALLOWED, ALSO_ALLOWED, gateway.base_url):
        assert await status(gateway, origin) == 101, origin
    for origin in (
        "http://chat.example.com",
        "https://chat.example.com:8080",
        "https://chat.example.com:443",
        "https://chat.example.com.",
        "https://chat.example.com/",
        "https://chat.example.com@example.org",
        "https://a.chat.example.com",
        "https://chat.example.comm",
        "https://chat-example.com",
        "https://chat.example.com https://example.org",
        "https://chat.example.com, https://chat.example.com",
        "https://xn--cht-9ia.example.com",
        "https://*",
        "*",
        "NULL",
        "null",
        "file://",
        "",
        "chrome-extension://abcdefgh",
        "http://example.org/https://chat.example.com",
        f"https://127.0.0.1:{gateway.port}",
        f"http://127.0.0.1:{gateway.port + 1}",
        "http://127.0.0.1",
        "https://",
        "//chat.example.com",
    ):
        assert await status(gateway, origin) == 403, origin


async def test_a_refused_handshake_makes_no_session(gateway: Gateway, world: World) -> None:
    count = 'SELECT count(*) FROM "ChatSession"'
    before = world.chatdb.value(count)
    for _ in range(5):
        assert await status(gateway, "https://example.org") == 403
    assert world.chatdb.value(count) == before


async def test_two_origins_in_one_handshake_are_refused(gateway: Gateway) -> None:
    for pair in ([ALLOWED, "https://example.org"], ["https://example.org", ALLOWED]):
        with pytest.raises(InvalidStatus) as refusal:
            async with gateway.connect(additional_headers=[("Origin", origin) for origin in pair]):
                pass
        assert refusal.value.response.status_code in (400, 403), pair


async def test_behind_a_proxy_that_ends_tls_the_own_origin_is_https(gateway: Gateway) -> None:
    own = f"127.0.0.1:{gateway.port}"
    assert await status(gateway, f"https://{own}", X_Forwarded_Proto="https") == 101
    assert await status(gateway, f"http://{own}", X_Forwarded_Proto="https") == 403
    assert await status(gateway, f"https://{own}") == 403
    public = {"X_Forwarded_Proto": "https", "X_Forwarded_Host": "bank.example"}
    assert await status(gateway, "https://bank.example", **public) == 101
    for origin in ("http://bank.example", "https://bank.example:444", "https://bank.example.org", f"https://{own}"):
        assert await status(gateway, origin, **public) == 403, origin


async def test_of_several_proxies_the_first_counts(gateway: Gateway) -> None:
    """Each appends what it sees to a list, in letters of its own choice, and may name the scheme's own port."""
    for proto, host, origin in (
        ("https,http", "bank.example", "https://bank.example"),
        ("https , http, http", "bank.example, inner.example", "https://bank.example"),
        ("HTTPS", "Bank.Example", "https://bank.example"),
        ("WSS, ws", " BANK.example:8443,inner", "https://bank.example:8443"),
        ("https", "bank.example:443", "https://bank.example"),
        ("http,https", "bank.example:80,inner", "http://bank.example"),
    ):
        proxied = {"X_Forwarded_Proto": proto, "X_Forwarded_Host": host}
        assert await status(gateway, origin, **proxied) == 101, proxied
        for other in ("https://inner.example", "http://bank.example:443", f"http://127.0.0.1:{gateway.port}"):
            assert await status(gateway, other, **proxied) == 403, (other, proxied)


async def test_what_a_proxy_says_is_not_believed_of_a_stranger(trusting_others: Gateway) -> None:
    own = f"127.0.0.1:{trusting_others.port}"
    assert await status(trusting_others, f"http://{own}") == 101
    assert await status(trusting_others, "https://bank.example", X_Forwarded_Host="bank.example") == 403
    assert await status(trusting_others, "http://bank.example", X_Forwarded_Host="bank.example") == 403
    assert await status(trusting_others, f"https://{own}", X_Forwarded_Proto="https") == 403
    lie = {"X_Forwarded_For": "10.1.2.3", "Forwarded": "for=10.1.2.3;host=bank.example;proto=https"}
    assert await status(trusting_others, "https://bank.example", X_Forwarded_Host="bank.example", **lie) == 403


async def test_foreign_pages_cannot_read_and_nobody_is_answered_with_a_star(gateway: Gateway) -> None:
    requests = [("GET", "/api/qna/faq"), ("GET", "/nothing"), ("POST", "/api/login"), ("GET", "/api/qna/faq?top_k=x")]
    requests += [("GET", "/docs"), ("GET", "/openapi.json"), ("PUT", "/api/login"), ("GET", "/metrics")]
    for method, path in requests:
        for origin in (ALLOWED, ALSO_ALLOWED, "https://example.org", "null", "https://chat.example.com:443"):
            answer = gateway.http.request(method, path, headers={"origin": origin})
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (origin if origin in (ALLOWED, ALSO_ALLOWED) else None), (method, path, origin)


async def test_no_preflight_is_answered_with_a_star(gateway: Gateway) -> None:
    for origin in (ALLOWED, "https://example.org", "null"):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        for more in ({}, {"access-control-request-headers": "content-type"}):
            answer = gateway.http.options("/api/login", headers=headers | more)
            assert "*" not in [v for name, v in answer.headers.items() if name.startswith("access-control-")]
            assert answer.headers.get("access-control-allow-origin") == (ALLOWED if origin == ALLOWED else None)


async def test_the_allowed_origin_can_read_the_request_id_of_every_reply(gateway: Gateway) -> None:
    for method, path in (("GET", "/api/qna/faq"), ("GET", "/nothing"), ("POST", "/api/login"), ("PUT", "/api/login")):
        answer = gateway.http.request(method, path, headers={"origin": ALLOWED})
        assert answer.headers["x-request-id"]
        assert answer.headers["access-control-expose-headers"].lower() == "x-request-id", (method, path)


async def test_a_page_of_the_internet_may_ask_whether_it_may_use_a_private_network(gateway: Gateway) -> None:
    """As browsers do before a request from a public page to a private address."""
    headers = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    answer = gateway.http.options("/api/login", headers=headers | {"origin": ALLOWED})
    assert (answer.status_code, answer.headers["access-control-allow-private-network"]) == (200, "true")
    answer = gateway.http.options("/api/login", headers=headers | {"origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers
