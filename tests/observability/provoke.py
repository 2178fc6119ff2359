"""What can happen on an instance, as coroutines: each does one thing and leaves no session behind."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.observability.conftest import LIMITS, Pair
from tests.support.backends import Drop, Held, Json, Raw, Stream, answer, event
from tests.support.card_qna import FAQS, TERMS
from tests.support.chat import visit
from tests.support.cluster import resume
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import unique

ORIGIN = "https://chat.example"


async def all_gone(pair: Pair) -> None:
    """Until no session is open on either instance as far as the database knows."""
    query = 'SELECT count(*) FROM "ChatSession" WHERE instance_id IS NOT NULL'
    await become(lambda: pair.cluster.world.chatdb.value(query) == 0, what="all sessions have ended")


async def ask(pair: Pair, message: str, *, here: Gateway | None = None) -> None:
    async with visit(here or pair.here) as visitor:
        await visitor.ask(message)


async def ask_llm(pair: Pair) -> None:
    await ask(pair, unique("자유로운 질문"))


async def ask_faq(pair: Pair) -> None:
    await ask(pair, FAQS[0].question)


async def ask_term(pair: Pair) -> None:
    await ask(pair, TERMS[0].term)


async def ask_for_a_stream(pair: Pair) -> None:
    """Two pieces and the answer."""
    message = unique("흘러나오는 답")
    events = [event({"delta": "하나 "}), event({"delta": "둘"}), event({"answer": "하나 둘"})]
    pair.cluster.world.llm.on(message, Stream(events))
    async with visit(pair.here, query="stream=true") as visitor:
        await visitor.prompt(message)
        while "sender" not in await visitor.receive():
            pass


async def stop(pair: Pair) -> None:
    """In the middle of an answer, as soon as something of it is shown."""
    message = unique("중지할 질문")
    pair.cluster.world.llm.on(message, Stream([event({"delta": "여기까지"})], then="hang"))
    async with visit(pair.here, query="stream=true") as visitor:
        message_id = await visitor.prompt(message)
        while (await visitor.receive())["type"] != "delta":
            pass
        await visitor.send({"type": "stop", "message_id": message_id})
        assert (await visitor.receive())["stopped"] is True


async def send_again(pair: Pair) -> None:
    """While its answer is made, and after it is stored: two duplicates of one turn."""
    message = unique("다시 보낸 질문")
    held = Held(answer("한 번"))
    pair.cluster.world.llm.on(message, held)
    async with visit(pair.here) as visitor:
        message_id = await visitor.prompt(message)
        await pair.cluster.world.llm.called(query=message)
        await visitor.prompt(message, message_id)
        await visitor.nothing_pending()
        held.release()
        assert (await visitor.receive())["message_id"] == message_id
        assert (await visitor.ask(message, message_id=message_id))["message_id"] == message_id


async def send_no_json(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        await visitor.nothing_pending()


async def send_an_invalid_message(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        await visitor.send({"message_id": "not a UUID", "message": "안녕하세요"})
        assert "message_id" in (await visitor.receive())["error"]


async def take_an_id_of_another_session(pair: Pair) -> None:
    """A message_id that has been stored before; that is found out only by the database."""
    async with visit(pair.here) as other, visit(pair.here) as visitor:
        taken = (await other.ask(FAQS[0].question))["message_id"]
        await visitor.prompt("남의 번호", taken)
        assert (await visitor.receive())["error"].startswith("Invalid message")


async def send_too_many_at_once(pair: Pair) -> None:
    message = unique("오래 걸리는 질문")
    held = Held(answer("끝"))
    pair.cluster.world.llm.on(message, held)
    async with visit(pair.here) as visitor:
        await visitor.prompt(message)
        await pair.cluster.world.llm.called(query=message)
        await visitor.prompt(message)
        await visitor.prompt(message)
        assert (await visitor.receive())["error"] == "Too many pending messages"
        held.release()
        for _ in range(2):
            await visitor.receive()


async def send_too_many_in_a_minute(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        for _ in range(int(LIMITS["PROMPTS_PER_MINUTE"])):
            await visitor.ask(FAQS[0].question)
        await visitor.prompt(FAQS[0].question)
        assert (await visitor.receive())["error"] == "Too many messages"


async def _refused(gateway: Gateway, **options: str) -> int:
    with pytest.raises(InvalidStatus) as refused:
        async with gateway.connect(**options):
            pass
    status: int = refused.value.response.status_code
    return status


async def come_from_a_foreign_origin(pair: Pair) -> None:
    assert await _refused(pair.here, origin="https://elsewhere.example") == 403


async def come_when_it_is_full(pair: Pair) -> None:
    await all_gone(pair)
    async with AsyncExitStack() as stack:
        for _ in range(int(LIMITS["MAX_SESSIONS"])):
            await stack.enter_async_context(visit(pair.here))
        assert await _refused(pair.here, origin=ORIGIN) == 503


async def come_back(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        pass
    async with resume(pair.here, visitor.session_id):
        pass


async def log_in(pair: Pair, at: Gateway, session_id: str, expected: int = 200) -> None:
    async with at.async_http() as http:
        body = {"session_id": session_id, "persona_id": pair.persona}
        assert (await http.post("/api/login", json=body)).status_code == expected


async def log_in_here(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        await log_in(pair, pair.here, visitor.session_id)
        await visitor.receive()


async def log_in_for_there(pair: Pair) -> None:
    """The request comes to this instance, the socket is on the other."""
    async with visit(pair.there) as visitor:
        await log_in(pair, pair.here, visitor.session_id)
        await visitor.receive()


async def log_in_from_there(pair: Pair) -> None:
    """The socket is on this instance, the request comes to the other."""
    async with visit(pair.here) as visitor:
        await log_in(pair, pair.there, visitor.session_id)
        await visitor.receive()


async def fail_to_log_in(pair: Pair) -> None:
    async with visit(pair.here) as visitor:
        pair.cluster.world.mcp.on_session(visitor.session_id, Json({}, status=500))
        await log_in(pair, pair.here, visitor.session_id, 502)


def _failing(*replies: Json | Raw | Drop) -> Callable[[Pair], Coroutine[Any, Any, None]]:
    async def provoke(pair: Pair) -> None:
        message = unique("실패하는 질문")
        pair.cluster.world.llm.on(message, *replies)
        await ask(pair, message)

    return provoke


answer_with_a_status = _failing(Json({"detail": "x"}, status=503))
answer_without_sense = _failing(Raw(b"no JSON"))
answer_with_a_reset = _failing(Drop())
