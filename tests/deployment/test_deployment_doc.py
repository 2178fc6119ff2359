"""docs/deployment.md: the commands, settings and statements in it are real."""

import re
import uuid

import pytest

from settings import Settings
from tests.support.chat import visit
from tests.support.postgres import PostgresServer
from tests.support.processes import ROOT
from tests.support.world import NewGateway, NewWorld

TEXT = (ROOT / "docs" / "deployment.md").read_text("utf-8")
# As gateway.py has them, which cannot be imported without settings.
KEEP_ALIVE_SECONDS = int(re.findall(r"^KEEP_ALIVE_SECONDS = (\d+)$", (ROOT / "gateway.py").read_text(), re.M)[0])
PATHS = set(re.findall(r'Route\("([^"]+)"', (ROOT / "gateway.py").read_text()))
SCRIPT_SECONDS = ("DRAIN_SECONDS_DEFAULT", "STOP_SECONDS_BEYOND_DRAIN")
STATEMENTS = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
# Words in capitals that are variables of scripts, of the balancer example or of other programs.
OTHERS = {"BALANCER", "DEPLOY_HOSTS", "DOCKER_HOST", "HOST", "IMAGE", "READY_SECONDS", "TARGET_GROUP_ARN"}


def test_its_settings_exist() -> None:
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", TEXT)) - OTHERS
    assert {"DRAIN_SECONDS", "PING_SECONDS", "DB_POOL_SIZE", "LISTEN_DATABASE_URL"} <= named
    assert named <= {name.upper() for name in Settings.__dataclass_fields__}


def test_its_figures_are_the_defaults() -> None:
    for name, value in re.findall(r"`([A-Z_]+)` \((\d[\d,]*)(?: s)?\)", TEXT):
        if name not in OTHERS:
            assert float(value.replace(",", "")) == getattr(Settings, name.lower()), name
    total = Settings.db_pool_size + Settings.faq_db_pool_size + 1
    assert f"At the defaults that is {total} for each instance" in TEXT


def test_its_files_and_links_exist() -> None:
    for file in re.findall(r"`((?:docker-scripts/)[\w.-]+|Jenkinsfile|compose\.yaml)\b", TEXT):
        assert (ROOT / file).exists(), file
    headings = {
        re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in re.findall(r"^## (.*)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) == headings


ALB = {
    setting: (value, why)
    for _, setting, value, why in re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
}


def in_seconds(setting: str) -> list[int]:
    return [int(number) for number in re.findall(r"(\d+) s\b", ALB[setting][0])]


def test_the_load_balancer_and_the_gateway_fit_together() -> None:
    """Pings, connections kept, draining, the stop timeout and both health checks, as their defaults are."""
    (idle,), (delay,) = in_seconds("idle timeout"), in_seconds("deregistration delay")
    assert 2 * Settings.ping_seconds < idle < KEEP_ALIVE_SECONDS
    assert f"below the {KEEP_ALIVE_SECONDS} s" in ALB["idle timeout"][1]
    scripts = (ROOT / "docker-scripts" / "lib.sh").read_text()
    drain, beyond = (int(re.findall(rf"^{name}=(\d+)$", scripts, re.M)[0]) for name in SCRIPT_SECONDS)
    assert drain == Settings.drain_seconds
    assert Settings.drain_seconds < delay < drain + beyond
    assert f"`DRAIN_SECONDS` + {beyond}" in ALB["deregistration delay"][1]
    own = re.search(r"HEALTHCHECK --interval=(\d+)s --timeout=(\d+)s", (ROOT / "Dockerfile").read_text())
    assert own
    assert in_seconds("interval, timeout") == [int(own[1]), int(own[2])]
    path = re.findall(r"GET (/[\w/]+)", ALB["health check"][0])[0]
    assert path in (ROOT / "docker-scripts" / "healthcheck.py").read_text()
    assert path in PATHS
    assert ALB["protocol, port"][0].endswith(f" {Settings.port}")
    interval, lost = in_seconds("interval, timeout")[0], re.findall(r"after (\d+) s", TEXT)[0]
    assert int(ALB["healthy, unhealthy threshold"][0][-1]) * interval == int(lost)


@pytest.mark.anyio
async def test_retention_removes_old_sessions_with_all_that_hangs_on_them(
    new_world: NewWorld, new_gateway: NewGateway
) -> None:
    (delete,) = [statement for statement in STATEMENTS if "DELETE" in statement]
    world = new_world()
    gateway = new_gateway(world)
    async with visit(gateway) as old, visit(gateway) as recent, visit(gateway) as present:
        for visitor in (old, recent, present):
            assert "message" in await visitor.ask(f"prompt {uuid.uuid4()}")
    gateway.stop()
    age = (
        "UPDATE \"ChatSession\" SET ended_at = now() - $2::float8 * interval '1 day' WHERE session_id = $1::text::uuid"
    )
    world.chatdb.fetch(age, old.session_id, 90.1)
    world.chatdb.fetch(age, recent.session_id, 89.9)
    world.chatdb.fetch(
        'UPDATE "ChatSession" SET ended_at = NULL, instance_id = 1 WHERE session_id = $1::text::uuid',
        present.session_id,
    )
    world.chatdb.execute(delete)
    left = {str(row["session_id"]) for row in world.chatdb.fetch('SELECT session_id FROM "ChatSession"')}
    assert left == {recent.session_id, present.session_id}
    assert world.turns(old.session_id) == []
    assert len(world.turns(recent.session_id)) == 1
    assert world.chatdb.value('SELECT count(*) FROM "Chat"') == 4
    assert world.chatdb.value('SELECT count(*) FROM "ChatbotResponse"') == 2


@pytest.mark.anyio
async def test_the_granted_rights_suffice(
    postgres: PostgresServer, new_world: NewWorld, new_gateway: NewGateway
) -> None:
    (grants,) = [statement for statement in STATEMENTS if "GRANT" in statement]
    role = f"gateway_{uuid.uuid4().hex}"
    world = new_world()
    postgres.admin.execute(f"CREATE ROLE {role} LOGIN")
    try:
        world.card_qna.execute(grants.replace("TO gateway", f"TO {role}"))
        question = world.card_qna.fetchrow("SELECT question, views FROM faqs WHERE views > 0 ORDER BY faq_id LIMIT 1")
        url = world.card_qna.url.replace("//postgres:", f"//{role}:")
        gateway = new_gateway(world, FAQ_DATABASE_URL=url)
        async with visit(gateway) as visitor:
            assert "message" in await visitor.ask(question["question"])
        assert gateway.stop() in (0, -15, 143)
        views = world.card_qna.value("SELECT views FROM faqs WHERE question = $1", question["question"])
        assert views == question["views"] + 1
    finally:
        world.card_qna.execute(f"DROP OWNED BY {role}")
        postgres.admin.execute(f"DROP ROLE {role}")
