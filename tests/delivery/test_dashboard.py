"""The dashboard and the alerts in a real Prometheus that asks a real gateway."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.delivery.engine import PATH, needs
from tests.observability.test_dashboard import ALERTS, expressions, panels
from tests.support.chat import visit
from tests.support.gateway import Gateway
from tests.support.network import NO_TLS
from tests.support.processes import Process, free_port
from tests.support.waiting import become
from tests.support.world import NewGateway, NewWorld

pytestmark = pytest.mark.anyio

JOB = "card-chat-gateway"
# What Grafana would fill in.
FILLED_IN = {"$job": JOB, "$instance": ".*", "$__rate_interval": "10s"}


class Prometheus:
    """Asks a gateway every second, and is asked."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        needs("prometheus", why="the dashboard's queries cannot be asked", root=False)
        port = free_port()
        config = folder / "prometheus.yml"
        config.write_text(
            f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{ALERTS}]\n"
            f"scrape_configs: [{{job_name: {JOB}, static_configs: [{{targets: ['127.0.0.1:{gateway.port}']}}]}}]\n"
        )
        options = [
            f"--config.file={config}",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        command = [str(shutil.which("prometheus", path=PATH)), *options]
        self.process = Process(command, environment={"PATH": PATH}, directory=folder)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/", trust_env=False, verify=NO_TLS)

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression; none as long as it does not answer."""
        try:
            response = self._http.get("query", params={"query": expression})
        except httpx.TransportError:
            return []
        if response.status_code == 503:  # it is starting
            return []
        reply = response.json()
        assert reply["status"] == "success", f"{expression}: {reply['error']}"
        found: list[dict[str, Any]] = reply["data"]["result"]
        return found

    def close(self) -> None:
        self._http.close()
        self.process.kill()


@pytest.fixture
def gateway(new_world: NewWorld, new_gateway: NewGateway) -> Gateway:
    return new_gateway(new_world())


@pytest.fixture
def prometheus(tmp_path: Path, gateway: Gateway) -> Iterator[Prometheus]:
    prometheus = Prometheus(tmp_path, gateway)
    yield prometheus
    prometheus.close()


def filled_in(expression: str) -> str:
    for variable, value in FILLED_IN.items():
        expression = expression.replace(variable, value)
    return expression


async def test_every_query_gives_a_series_while_all_is_well(prometheus: Prometheus, gateway: Gateway) -> None:
    """An instance with a visitor and without a failure: nothing is missing on the dashboard, and no alert is near."""
    answered = f'rate(gateway_prompts_total{{job="{JOB}",outcome="llm"}}[10s]) > 0'
    async with visit(gateway) as visitor:
        await become(lambda: prometheus.ask("up == 1"), what="the gateway is scraped")
        await visitor.goes_on()
        await become(lambda: prometheus.ask(answered), what="the turn is seen")
    queries = {place: filled_in(expression) for place, expression in expressions().items() if not place.startswith("$")}
    names = {f"{panel['title']} {target['refId']}" for panel in panels() for target in panel["targets"]}
    shown = {place: prometheus.ask(query) for place, query in queries.items()}
    assert [place for place in names if not shown[place]] == []
    assert [place for place in set(queries) - names if shown[place]] == [], "alerts that are pending"
    failed = shown["Share of failed upstream calls A"]
    assert {series["metric"]["server"]: series["value"][1] for series in failed}["llm"] == "0"
    await asyncio.to_thread(gateway.stop)
