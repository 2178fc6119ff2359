"""docs/mcp.md's example and the demo's server, run as they stand, in the environment with the official SDK."""

import os
import re
from pathlib import Path

import pytest

from tests.mcp.conftest import NewClient
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import become
from tests.support.world import World
from upstream.call import Call

pytestmark = pytest.mark.anyio

PYTHON = ROOT / ".venv-mcp2" / "bin" / "python"


async def test_they_recommend_by_who_is_logged_in_and_not_by_who_is_said_to_be(
    default_world: World, default_gateway: Gateway, new_client: NewClient, tmp_path: Path
) -> None:
    """And the example is the same in both languages."""
    english, korean = (
        re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / name).read_text("utf-8"), re.M | re.S)
        for name in ("mcp.md", "mcp.ko.md")
    )
    assert english == korean
    (tmp_path / "example.py").write_text(english[0], "utf-8")
    settings = {"GATEWAY_URL": default_gateway.base_url, "DATABASE_URL": default_world.chatdb.url}
    servers = {"example:app": (tmp_path, free_port()), "demo.mcp_native:app": (ROOT, free_port())}
    processes = [
        Process(
            [str(PYTHON), "-m", "uvicorn", app, "--port", str(port)],
            environment={"PATH": os.environ["PATH"], **settings},
            directory=folder,
        )
        for app, (folder, port) in servers.items()
    ]
    for process in processes:
        await become(lambda process=process: "Uvicorn running" in process.output() or not process.running())  # type: ignore[misc]
    (persona, *_) = default_world.chatdb.fetch('SELECT id, name FROM "Persona" ORDER BY id')
    said: list[str] = []
    async with visit(default_gateway) as visitor, default_gateway.async_http() as http:
        for _, port in servers.values():
            client = new_client(f"http://127.0.0.1:{port}/mcp")
            asked = {"session_id": visitor.session_id, "persona_id": 0}
            before = await client.ask(asked, "test", Call())
            body = {"session_id": visitor.session_id, "persona_id": persona["id"]}
            if not said:
                assert before["login_required"] is True
                assert (await http.post("/api/login", json=body)).status_code == 200
            after = await client.ask(asked, "test", Call())
            assert after["card_list"]
            said.append(after["answer"])
            assert client.revision == "2026-07-28"
    assert said[0].startswith(f"{persona['id']}번")
    assert said[1].startswith(persona["name"])
    for process in processes:
        process.kill()
