"""Prompts that nobody would answer, or that would be answered out of order, if nobody looked."""

import asyncio

import pytest

from tests.support.backends import Held, answer
from tests.support.card_qna import FAQS
from tests.support.chat import new_id, visit
from tests.support.cluster import Cluster, answers_of, instance_ids, prompts_of
from tests.support.gateway import Gateway
from tests.support.raw import TEXT, RawSocket
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio


async def test_a_turn_in_the_name_of_an_instance_that_does_not_know_it_is_answered(
    default_gateway: Gateway, default_world: World
) -> None:
    """As if the instance had taken it over and the database's reply had been lost."""
    chatdb, text, message_id = default_world.chatdb, unique("남은 질문"), new_id()
    async with visit(default_gateway) as visitor:
        chatdb.execute(
            'INSERT INTO "Chat" (id, session_id, is_user, content, created_at)'
            f" VALUES ('{message_id}', '{visitor.session_id}', true, '{text}', now());"
            'INSERT INTO "Turn" (prompt_id, session_id, instance_id)'
            f" VALUES ('{message_id}', '{visitor.session_id}', {instance_ids(chatdb)[0]})"
        )
        frame = await visitor.receive()
        assert (frame["message_id"], frame["message"]) == (message_id, f"re: {text}")


async def test_prompts_of_one_packet_keep_their_order_when_the_first_is_answered_from_memory(
    default_gateway: Gateway, default_world: World
) -> None:
    first, second = new_id(), new_id()
    prompts = [(first, FAQS[0].question), (second, unique("둘째"))]

    def talk() -> str:
        with RawSocket(default_gateway) as raw:
            session_id = raw.handshake()
            raw.send_together([{"message_id": id, "message": message} for id, message in prompts])
            assert [raw.read_frame()[0] for _ in prompts] == [TEXT, TEXT]
            return session_id

    session_id = await asyncio.to_thread(talk)
    assert prompts_of(default_world.chatdb, session_id) == [first, second]
    assert [row["message_id"] for row in answers_of(default_world.chatdb, session_id)] == [first, second]


async def test_a_faq_question_under_the_id_of_a_prompt_in_hand_elsewhere_does_not_close_its_turn(
    three: Cluster,
) -> None:
    """Otherwise nobody would answer it if its instance were lost."""
    text, held, llm, chatdb = unique("느린 질문"), Held(answer("느린 답")), three.world.llm, three.world.chatdb
    llm.on(text, held)
    async with visit(three[0]) as visitor, visit(three[1]) as other:
        message_id = await visitor.prompt(text)
        await llm.called(query=text)
        frame = await other.ask(FAQS[0].question, message_id=message_id)
        assert frame["error"] == "Invalid message: message_id is already used"
        assert chatdb.value(f"SELECT count(*) FROM \"Turn\" WHERE prompt_id = '{message_id}'") == 1
        held.release()
        assert (await visitor.receive())["message"] == "느린 답"
