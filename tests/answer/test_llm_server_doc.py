"""docs/llm-server.md: the example in it is run as it stands, behind a real gateway."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from settings import Settings
from tests.support.chat import Frame, Visitor, visit
from tests.support.gateway import Gateway, environment
from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import become, eventually
from tests.support.world import NewWorld

pytestmark = pytest.mark.anyio

TEXT, KOREAN = ((ROOT / "docs" / name).read_text("utf-8") for name in ("llm-server.md", "llm-server.ko.md"))


def blocks(text: str, language: str = "") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


@pytest.fixture(scope="module")
def llm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """The example, served as the page says; its address."""
    folder: Path = tmp_path_factory.mktemp("llm-server")
    (example,) = blocks(TEXT, "python")
    (folder / "llm_server.py").write_text(example, "utf-8")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "llm_server:app", "--port", str(port)]
    process = Process(command, environment=environment({}), directory=folder)

    def is_there() -> bool:
        assert process.running(), process.output()
        return "Application startup complete" in process.output() and httpx.get(f"{url}/docs").status_code == 200

    url = f"http://127.0.0.1:{port}"
    eventually(is_there, what="the example serves")
    yield process, url
    process.kill()


@pytest.fixture(scope="module")
def gateway(llm_server: tuple[Process, str], new_world: NewWorld) -> Iterator[Gateway]:
    with Gateway(new_world().settings | {"LLMSERVER_URL": llm_server[1]}) as gateway:
        yield gateway


async def until_answer(visitor: Visitor) -> list[Frame]:
    frames = [await visitor.receive()]
    while "sender" not in frames[-1]:
        frames.append(await visitor.receive())
    return frames


async def test_the_example_streams_an_answer(gateway: Gateway) -> None:
    async with visit(gateway, query="stream=true") as visitor:
        await visitor.prompt("연회비가 없는 카드를 알려 주세요 😀")
        *deltas, answer = await until_answer(visitor)
        assert deltas[0]["type"] == "start"
        text = "".join(frame["text"] for frame in deltas if frame["type"] == "delta")
        assert sum(frame["type"] == "delta" for frame in deltas) > 1
        assert answer["message"] == "연회비가 없는 카드를 알려 주세요 😀 "
        assert answer["message"].startswith(text)
        assert visitor.history()[-1]["content"] == answer["message"]


async def test_a_stop_ends_the_examples_generator(gateway: Gateway, llm_server: tuple[Process, str]) -> None:
    """Within a second, in the middle of some ninety seconds' work."""
    process = llm_server[0]
    async with visit(gateway, query="stream=true") as visitor:
        message_id = await visitor.prompt("카드 " * 900)
        while (await visitor.receive())["type"] != "delta":
            pass
        assert "stopped" not in process.output()
        await visitor.send({"type": "stop", "message_id": message_id})
        answer = (await until_answer(visitor))[-1]
        await become(lambda: "stopped\n" in process.output(), 1, "the generator was cancelled")
        assert answer["stopped"] is True
        assert answer["message"].startswith("카드 ")
        assert len(answer["message"]) < 100


def test_its_events_fit_together() -> None:
    """The deltas of the stream that is shown make up its answer."""
    events = [json.loads(line) for line in re.findall(r"^data: (.*)$", TEXT, re.M)]
    deltas = "".join(event.get("delta", "") for event in events)
    assert deltas == events[-1]["answer"]
    assert [sorted(event) for event in events[:2]] == [["tool_name"], ["delta"]]


def test_its_settings_have_these_defaults() -> None:
    assert Settings.httpx_timeout == 300 and "| 300 s | `HTTPX_TIMEOUT` |" in TEXT
    assert Settings.max_reply_bytes == 2**20 and "| 1 MiB | `MAX_REPLY_BYTES` |" in TEXT
    assert Settings.delta_seconds == 0.04 and "every 40 ms" in TEXT


def test_both_languages_show_the_same() -> None:
    assert blocks(KOREAN) == blocks(TEXT)
    assert blocks(KOREAN, "python") == blocks(TEXT, "python")
    assert KOREAN.count("\n## ") == TEXT.count("\n## ")
