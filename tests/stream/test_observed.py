"""What metrics and the log say of answers that are shown while they are made, and stopped."""

import json
from collections.abc import Iterator

import pytest

from tests.observability.scrape import scrape
from tests.support.backends import Stream
from tests.support.chat import Frame
from tests.support.gateway import Gateway
from tests.support.streams import Tap, delta, pieces, watching
from tests.support.waiting import become
from tests.support.world import World, unique

pytestmark = pytest.mark.anyio

TEXT = "한 글자씩"


@pytest.fixture(scope="module")
def gateway(world: World) -> Iterator[Gateway]:
    """A gateway that writes its log as JSON, and does nothing else."""
    with Gateway(world.settings | {"ENVIRONMENT": "production"}) as gateway:
        yield gateway


def logged(gateway: Gateway, message_id: str) -> list[Frame]:
    """The lines of a turn."""
    lines = [json.loads(line) for line in gateway.output().splitlines() if message_id in line]
    return [line for line in lines if "turn" in line.values()]


async def test_metrics_count_what_was_sent(world: World, gateway: Gateway) -> None:
    """Deltas as the client counts them, a first one for each answer that had one, drafts as long as they are made."""
    queries = [unique("질문") for _ in range(3)]
    world.llm.on(queries[0], Stream(pieces(TEXT)))
    tap = Tap()
    world.llm.on(queries[2], tap)
    before = scrape(gateway)
    async with watching(gateway) as reader:
        for query in queries:
            message_id = await reader.visitor.prompt(query)
        await reader.until_answer()
        await reader.until_answer()
        tap.send(delta("반"))
        await reader.until_text("반", message_id)
        await become(lambda: scrape(gateway).value("gateway_drafts") == 1)
        await reader.visitor.send({"type": "stop", "message_id": message_id})
        await reader.until_answer()
        await become(lambda: scrape(gateway).value("gateway_drafts") == 0)
        after = scrape(gateway)

        def grown(name: str, **labels: str) -> float:
            return after.value(name, **labels) - before.value(name, **labels)

        assert grown("gateway_deltas_total") == reader.kinds.count("delta")
        assert grown("gateway_first_delta_seconds_count") == 2
        assert grown("gateway_previewed_bytes_total") == 0
        assert grown("gateway_prompts_total", outcome="stopped") == 1
        assert grown("gateway_upstream_calls_total", server="llm", result="stopped") == 1
        assert grown("gateway_upstream_calls_total", server="llm", result="ok") == 2


async def test_the_line_of_a_turn_says_how_it_was_made(world: World, gateway: Gateway) -> None:
    """How many pieces came, and when the first one; nothing of it where there were none."""
    streamed, plain = unique("질문"), unique("질문")
    world.llm.on(streamed, Stream(pieces(TEXT)))
    async with watching(gateway) as reader:
        ids = [await reader.visitor.prompt(streamed), await reader.visitor.prompt(plain)]
        for _ in ids:
            await reader.until_answer()
    for message_id in ids:
        await become(lambda message_id=message_id: logged(gateway, message_id))  # type: ignore[misc]
    (first,), (second,) = (logged(gateway, message_id) for message_id in ids)
    assert first["pieces"] == len(TEXT)
    assert 0 < first["milliseconds"]["first_delta"] < first["milliseconds"]["upstream"] + 1000
    assert "pieces" not in second
    assert "first_delta" not in second["milliseconds"]
    assert TEXT[:3] not in gateway.output()
