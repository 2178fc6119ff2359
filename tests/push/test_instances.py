"""A login reaches the socket, wherever it is."""

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import httpx
import pytest

from tests.support.backends import CallBack, Held, login_required_answer, recommendation
from tests.support.chat import Visitor, visit
from tests.support.cluster import (
    Cluster,
    answers_of,
    kill_backends,
    persona_id,
    receive_all,
    resume,
    session_locked,
    waiting_for_locks,
)
from tests.support.gateway import Gateway
from tests.support.waiting import become
from tests.support.world import unique

pytestmark = pytest.mark.anyio

LOGINS = 20
SAME = 24
ROUNDS = 3
PAUSE_SECONDS = 0.05  # between logins, or they would take all the CPU that lost connections need to come back


async def log_in(gateway: Gateway, session_id: str, persona: int) -> httpx.Response:
    async with gateway.async_http() as client:
        return await client.post("/api/login", json={"session_id": session_id, "persona_id": persona})


async def test_a_login_on_one_instance_reaches_the_socket_on_another_while_a_third_is_asked_back(
    three: Cluster, personas: list[int]
) -> None:
    """The tie is visible on a third instance before the MCP server answers, and the push comes once."""
    here, there, third = three
    async with visit(here) as visitor:
        asked = CallBack(third.base_url, recommendation("추천입니다.", ["카드의정석2"]))
        three.world.mcp.on_session(visitor.session_id, asked)
        response = await log_in(there, visitor.session_id, personas[1])
        assert (response.status_code, response.content) == (200, b"")
        assert asked.answers == [(200, {"persona_id": personas[1]})]
        push = await visitor.receive()
        assert push["message"] == "추천입니다."
        assert push["card_list"] == ["카드의정석2"]
        assert push["tool_name"] == "consumption_recommend"
        assert push["login_required"] is False
        await visitor.nothing_pending()
        for gateway in three:
            assert persona_id(gateway, visitor.session_id) == (200, personas[1])
        (stored,) = answers_of(three.world.chatdb, visitor.session_id)
        assert stored["message_id"] == push["message_id"]
        assert stored["created_at"].isoformat(timespec="microseconds") == push["timestamp"]


async def test_logins_of_many_sessions_at_once_all_arrive_once(three: Cluster, personas: list[int]) -> None:
    """Each login goes to an instance without the socket, its call-back to the third: none missing, none twice."""
    gateways = list(three)
    async with AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(gateways[n % 3])) for n in range(LOGINS)]
        asked: list[CallBack] = []
        for n, visitor in enumerate(visitors):
            asked.append(CallBack(gateways[(n + 2) % 3].base_url, recommendation(f"추천 {n}", ["카드"])))
            three.world.mcp.on_session(visitor.session_id, asked[n])
        responses = await asyncio.gather(
            *(log_in(gateways[(n + 1) % 3], visitor.session_id, personas[n % 3]) for n, visitor in enumerate(visitors))
        )
        assert [response.status_code for response in responses] == [200] * LOGINS
        for n, visitor in enumerate(visitors):
            assert (await visitor.receive())["message"] == f"추천 {n}"
            await visitor.nothing_pending()
            assert asked[n].answers == [(200, {"persona_id": personas[n % 3]})]
            assert len(answers_of(three.world.chatdb, visitor.session_id)) == 1


async def test_a_push_of_100_kb_arrives(three: Cluster, personas: list[int]) -> None:
    """No size of a push is too large for the way between instances."""
    cards = [f"카드의정석 {n} " + "가" * 300 for n in range(330)]
    assert sum(len(card.encode()) for card in cards) > 100_000 * 3
    async with visit(three[0]) as visitor:
        three.world.mcp.on_session(visitor.session_id, recommendation("많습니다.", cards))
        assert (await log_in(three[1], visitor.session_id, personas[0])).status_code == 200
        assert (await visitor.receive())["card_list"] == cards


async def test_the_push_carries_the_prompt_that_asked_for_the_login_on_every_instance(
    three: Cluster, personas: list[int]
) -> None:
    """Where the login was asked for does not matter to the push after it."""
    message = unique("소비 패턴으로 추천해 줘")
    three.world.llm.on(message, login_required_answer())
    async with visit(three[2]) as visitor:
        asked = await visitor.ask(message)
        assert asked["login_required"] is True
        assert (await log_in(three[0], visitor.session_id, personas[0])).status_code == 200
        push = await visitor.receive()
        assert (push["message_id"], push["login_required"]) == (asked["message_id"], False)
        assert push["timestamp"] > asked["timestamp"]


async def test_many_logins_of_one_session_at_once_are_all_pushed(three: Cluster, personas: list[int]) -> None:
    """Logins that all carry the same prompt's id do not push each other out."""
    message = unique("로그인이 필요한 질문")
    three.world.llm.on(message, login_required_answer())
    async with visit(three[0]) as visitor:
        asked = await visitor.ask(message)
        held = Held(recommendation("추천"))
        three.world.mcp.on_session(visitor.session_id, held)
        logins = [asyncio.create_task(log_in(three[n % 3], visitor.session_id, personas[n % 3])) for n in range(SAME)]
        await three.world.mcp.called(session_id=visitor.session_id, times=SAME)
        with session_locked(three.world.chatdb, visitor.session_id):
            held.release()
            await become(lambda: waiting_for_locks(three.world.chatdb) == 3, what="the pushes of each instance wait")
        assert [(await login).status_code for login in logins] == [200] * SAME
        assert len(answers_of(three.world.chatdb, visitor.session_id)) == 1 + SAME
        pushes = await receive_all(visitor, SAME)
        assert {push["message_id"] for push in pushes} == {asked["message_id"]}
        times = [asked["timestamp"], *(push["timestamp"] for push in pushes)]
        assert all(one < next_one for one, next_one in pairwise(times))
        await visitor.nothing_pending()


async def test_a_login_whose_visitor_leaves_meanwhile_succeeds(three: Cluster, personas: list[int]) -> None:
    """The push of a login stays in the history when nobody is there to see it."""
    held = Held(recommendation("아무도 없나요?"))
    async with visit(three[0]) as visitor:
        three.world.mcp.on_session(visitor.session_id, held)
        login = asyncio.create_task(log_in(three[1], visitor.session_id, personas[0]))
        await three.world.mcp.called(session_id=visitor.session_id)
    held.release()
    assert (await login).status_code == 200
    visitor.gateway = three[2]
    history = visitor.history()
    assert [entry["content"] for entry in history] == ["아무도 없나요?"]


async def test_a_login_whose_session_moves_meanwhile_reaches_the_new_socket(
    three: Cluster, personas: list[int]
) -> None:
    """The push goes to where the session is when it is made."""
    held = Held(recommendation("여기 계셨군요."))
    async with visit(three[0]) as visitor:
        three.world.mcp.on_session(visitor.session_id, held)
        login = asyncio.create_task(log_in(three[1], visitor.session_id, personas[0]))
        await three.world.mcp.called(session_id=visitor.session_id)
        async with resume(three[2], visitor.session_id) as moved:
            held.release()
            assert (await login).status_code == 200
            assert (await moved.receive())["message"] == "여기 계셨군요."
            await moved.nothing_pending()


async def test_the_persona_of_a_prompt_is_the_one_in_the_database(three: Cluster, personas: list[int]) -> None:
    """A prompt is stored with the persona of its session, also when another instance has tied it just before."""
    chatdb = three.world.chatdb
    async with visit(three[0]) as visitor:
        before = await visitor.ask(unique("로그인 전"))
        assert (await log_in(three[1], visitor.session_id, personas[2])).status_code == 200
        after = await visitor.prompt(unique("로그인 후"))
        frames = await receive_all(visitor, 2)
        assert frames[1]["message_id"] == after
        persona = 'SELECT persona_id FROM "Chat" WHERE id = $1::text::uuid'
        assert chatdb.value(persona, before["message_id"]) is None
        assert chatdb.value(persona, after) == personas[2]


async def log_in_until(
    done: asyncio.Event, three: Cluster, persona: int, visitor: Visitor, here: int
) -> tuple[list[int], list[str]]:
    """Log in again and again until `done`, at instances without the socket: the statuses and the pushes that came."""
    statuses: list[int] = []
    messages: list[str] = []
    while not done.is_set() or not statuses:
        response = await log_in(three[(here + 1) % 3], visitor.session_id, persona)
        statuses.append(response.status_code)
        messages.append((await visitor.receive())["message"])
        await asyncio.sleep(PAUSE_SECONDS)
    return statuses, messages


async def test_no_push_is_missed_while_the_listen_connection_is_lost(three: Cluster, personas: list[int]) -> None:
    """The LISTEN connections of all instances are killed again and again while logins arrive: each push comes once."""
    chatdb = three.world.chatdb
    async with AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(visit(three[n % 3])) for n in range(6)]
        done = asyncio.Event()
        working = [
            asyncio.create_task(log_in_until(done, three, personas[0], visitor, n))
            for n, visitor in enumerate(visitors)
        ]
        for _ in range(ROUNDS):

            async def killed() -> bool:
                return await asyncio.to_thread(kill_backends, chatdb, LISTENING, 3) >= 3

            await become(killed, what="three LISTEN connections were there to be killed")
        done.set()
        for visitor, work in zip(visitors, working, strict=True):
            statuses, messages = await work
            assert set(statuses) == {200}
            assert len(messages) == len(statuses) == len(answers_of(chatdb, visitor.session_id))
            await visitor.nothing_pending()


# The backend that holds an instance's advisory lock is the one of its LISTEN connection.
LISTENING = "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
