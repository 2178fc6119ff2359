"""The harness itself: a fault that is not injected would make other tests pass for nothing."""

import httpx
import pytest

from tests.support.backends import Drip, Drop, Hang, Held, LlmStub, Raw, answer
from tests.support.background import background
from tests.support.card_qna import FAQS, build_card_qna
from tests.support.network import NO_TLS, RefusedPort, TcpProxy
from tests.support.postgres import Database, PostgresServer
from tests.support.waiting import eventually
from tests.support.world import unique


def ask(llm: LlmStub, query: str, timeout: float = 5) -> httpx.Response:
    return httpx.post(llm.url + "/llm/mcp-router/dispatch", json={"query": query}, timeout=timeout, verify=NO_TLS)


def test_the_stub_answers_and_records_the_call(llm: LlmStub) -> None:
    query = unique("안녕")
    assert ask(llm, query).json() == {"answer": f"re: {query}", "tool_response": None}
    (call,) = llm.calls_with(query=query)
    assert (call.method, call.path, call.done) == ("POST", "/llm/mcp-router/dispatch", True)


def test_replies_come_one_after_the_other(llm: LlmStub) -> None:
    query = unique("차례")
    llm.on(query, answer("하나"), Raw(b"no", status=503))
    assert ask(llm, query).json()["answer"] == "하나"
    assert [ask(llm, query).status_code for _ in range(2)] == [503, 503]


def test_a_held_reply_waits_for_its_release(llm: LlmStub) -> None:
    query = unique("기다림")
    held = Held(answer("이제"))
    llm.on(query, held)
    future = background.loop.run_in_executor(None, ask, llm, query)
    llm.wait_called(query=query)
    held.release()
    background.run(asyncio_wait(future))
    assert future.result().json()["answer"] == "이제"


async def asyncio_wait(future: "object") -> None:
    await future  # type: ignore[misc]


@pytest.mark.parametrize("reply", [Hang(), Held(answer("nie"))], ids=["hang", "held"])
def test_a_caller_that_gives_up_is_noticed(llm: LlmStub, reply: Hang | Held) -> None:
    query = unique("포기")
    llm.on(query, reply)
    with pytest.raises(httpx.ReadTimeout):
        ask(llm, query, timeout=0.3)
    (call,) = llm.calls_with(query=query)
    eventually(lambda: call.abandoned)


def test_drop_resets_before_the_reply_or_in_the_middle_of_it(llm: LlmStub) -> None:
    query = unique("끊김")
    llm.on(query, Drop(), Drop(b'{"answer"'))
    with pytest.raises(httpx.ReadError):
        ask(llm, query)
    with pytest.raises(httpx.RemoteProtocolError):
        ask(llm, query)


def test_drip_never_ends_though_something_always_comes(llm: LlmStub) -> None:
    query = unique("물방울")
    llm.on(query, Drip(0.01))
    with httpx.stream("POST", llm.url + "/llm", json={"query": query}, timeout=0.5) as response:
        received = response.iter_raw()
        assert [next(received) for _ in range(20)] == [b" "] * 20


def test_a_stub_that_was_stopped_refuses_and_can_come_back() -> None:
    with LlmStub() as stub:
        held = unique("끝까지")
        stub.on(held, Hang())
        future = background.loop.run_in_executor(None, ask, stub, held)
        stub.wait_called(query=held)
        stub.stop()
        with pytest.raises(httpx.HTTPError):
            background.run(asyncio_wait(future))
        with pytest.raises(httpx.ConnectError):
            ask(stub, "여보세요")
        stub.start()
        assert ask(stub, "여보세요").status_code == 200


def test_a_refused_port_refuses() -> None:
    with RefusedPort() as refused, pytest.raises(httpx.ConnectError):
        httpx.get(refused.url)


def test_a_proxy_can_be_cut_frozen_and_mended(llm: LlmStub) -> None:
    with TcpProxy(llm.port) as proxy, httpx.Client(base_url=f"http://127.0.0.1:{proxy.port}") as client:
        assert client.post("/", json={}).status_code == 200
        proxy.freeze()
        with pytest.raises(httpx.ReadTimeout):
            client.post("/", json={}, timeout=0.3)
        proxy.mend()
        assert client.post("/", json={}).status_code == 200
        proxy.cut()
        with pytest.raises(httpx.TransportError):
            client.post("/", json={})
        with pytest.raises(httpx.ConnectError):
            client.post("/", json={})
        proxy.mend()
        assert client.post("/", json={}).status_code == 200


def test_databases_are_copies_of_their_template(postgres: PostgresServer, card_qna_template: Database) -> None:
    copy = postgres.database(card_qna_template)
    copy.execute("DELETE FROM faqs")
    assert card_qna_template.value("SELECT count(*) FROM faqs") == len(FAQS)
    copy.drop()


def test_string_ids_are_strings(postgres: PostgresServer) -> None:
    database = build_card_qna(postgres.database(), "string")
    assert database.value("SELECT min(faq_id) FROM faqs") == "FAQ001"
    assert database.value("SELECT max(term_id) FROM terms") == "TERM008"
    database.drop()


def test_a_server_can_be_frozen_stopped_and_started() -> None:
    server = PostgresServer()
    try:
        database = build_card_qna(server.database())
        server.freeze()
        with pytest.raises(TimeoutError):
            background.run(database._fetch("SELECT 1", ()), 0.3)
        server.thaw()
        server.stop()
        with pytest.raises(OSError):
            database.fetch("SELECT 1")
        server.start()
        assert database.value("SELECT count(*) FROM faqs") == len(FAQS)
    finally:
        server.close()
    assert not server.base.exists()
    assert not server.data.exists()
