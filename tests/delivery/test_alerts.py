"""monitoring/alerts.yml, judged by promtool: each alert fires where it should, not below, and in no rolling restart."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.delivery.engine import PATH, needs
from tests.observability.scrape import scrape
from tests.observability.test_dashboard import ALERTS, alerts
from tests.support.gateway import Gateway

SCRAPE_SECONDS = 30
SAMPLES = 180
JOB = 'job="card-chat-gateway"'
UPSTREAM = "gateway_upstream_calls_total"
Series = dict[str, str]


def always(value: float) -> str:
    return f"{value}+0x{SAMPLES}"


def per_second(rate: float) -> str:
    return f"0+{rate * SCRAPE_SECONDS}x{SAMPLES}"


def gauge(name: str, value: float, *labels: str) -> Series:
    return {series(name, 'instance="a"', *labels): always(value)}


def series(name: str, *labels: str) -> str:
    return f"{name}{{{','.join([JOB, *labels])}}}"


def counters(name: str, **rates: float) -> Series:
    """By the label that tells the outcomes of this metric apart; `llm_ok` has its server before it."""
    found: Series = {}
    for outcome, rate in rates.items():
        server, _, result = outcome.partition("_")
        labels = {
            UPSTREAM: [f'server="{server}"', f'result="{result}"'],
            "gateway_prompts_total": [f'outcome="{outcome}"'],
            "gateway_sessions_opened_total": [f'result="{outcome}"'],
        }[name]
        found[series(name, 'instance="a"', *labels)] = per_second(rate)
    return found


def histogram(name: str, bounds: tuple[float, float], *labels: str) -> Series:
    """One observation a second between two bounds of the real buckets."""
    low, high = bounds
    rates = {str(low): 0.0, str(high): 1.0, "+Inf": 1.0}
    return {
        series(f"{name}_bucket", 'instance="a"', f'le="{le}"', *labels): per_second(rate) for le, rate in rates.items()
    }


def starts(times: int) -> Series:
    """So many starts in half an hour, 5 minutes apart."""
    values = " ".join(f"{1000 + start}+0x9" for start in range(times + 1))
    return {series("process_start_time_seconds", 'instance="a"'): f"{values} {1000 + times}+0x{SAMPLES}"}


def versions(*names: str) -> Series:
    return {series("gateway_build_info", f'instance="{name}"', f'version="{name}"'): always(1) for name in names}


@dataclass(frozen=True)
class Case:
    """What makes an alert fire, and what just does not."""

    fires: Series
    quiet: Series


CASES = {
    "GatewayAllDown": Case(gauge("up", 0), gauge("up", 1)),
    "GatewayDown": Case(gauge("up", 0), gauge("up", 1)),
    "GatewayAnswersNotStored": Case(gauge("gateway_unstored_answers", 1), gauge("gateway_unstored_answers", 0)),
    "GatewayListenLost": Case(gauge("gateway_listen_age_seconds", 10.1), gauge("gateway_listen_age_seconds", 10)),
    "GatewayTurnStuck": Case(gauge("gateway_oldest_turn_seconds", 331), gauge("gateway_oldest_turn_seconds", 330)),
    "GatewayPromptsRefused": Case(
        counters("gateway_prompts_total", llm=94, refused_rate=6),
        counters("gateway_prompts_total", llm=96, refused_rate=4),
    ),
    "GatewayHandshakesRefused": Case(
        counters("gateway_sessions_opened_total", new=94, refused_full=6),
        counters("gateway_sessions_opened_total", new=96, refused_full=4),
    ),
    "GatewayLlmServerFailing": Case(
        counters(UPSTREAM, llm_ok=89, llm_timeout=11), counters(UPSTREAM, llm_ok=60, llm_stopped=31, llm_timeout=9)
    ),
    "GatewayLlmServerSlow": Case(
        histogram("gateway_turn_seconds", (30.0, 60.0), 'part="upstream"'),
        histogram("gateway_turn_seconds", (10.0, 30.0), 'part="upstream"'),
    ),
    "GatewayFirstDeltaLate": Case(
        histogram("gateway_first_delta_seconds", (10.0, 30.0)) | gauge("gateway_drafts", 1),
        histogram("gateway_first_delta_seconds", (5.0, 10.0)) | gauge("gateway_drafts", 1),
    ),
    "GatewayMcpServerFailing": Case(
        counters(UPSTREAM, mcp_ok=89, mcp_failed=11), counters(UPSTREAM, mcp_ok=91, mcp_failed=9)
    ),
    "GatewayChatDbSlow": Case(
        histogram("gateway_turn_seconds", (0.5, 1.0), 'part="store_prompt"'),
        histogram("gateway_turn_seconds", (0.25, 0.5), 'part="store_prompt"'),
    ),
    "GatewayPoolExhausted": Case(
        histogram("gateway_db_wait_seconds", (0.25, 0.5), 'database="chatdb"'),
        histogram("gateway_db_wait_seconds", (0.1, 0.25), 'database="chatdb"'),
    ),
    "GatewayTurnsTakenOver": Case(
        {series("gateway_turns_taken_over_total", 'instance="a"'): per_second(0.01)},
        {series("gateway_turns_taken_over_total", 'instance="a"'): always(5)},
    ),
    "GatewaySessionsNearLimit": Case(gauge("gateway_sessions", 7001), gauge("gateway_sessions", 7000)),
    "GatewayEventLoopLate": Case(
        gauge("gateway_event_loop_lag_seconds", 0.26), gauge("gateway_event_loop_lag_seconds", 0.25)
    ),
    "GatewayCpuHigh": Case(
        {series("process_cpu_seconds_total", 'instance="a"'): per_second(0.71)},
        {series("process_cpu_seconds_total", 'instance="a"'): per_second(0.69)},
    ),
    "GatewayMemoryHigh": Case(
        gauge("process_resident_memory_bytes", 800000001), gauge("process_resident_memory_bytes", 800000000)
    ),
    "GatewayFileDescriptorsLow": Case(
        gauge("process_open_fds", 81) | gauge("process_max_fds", 100),
        gauge("process_open_fds", 80) | gauge("process_max_fds", 100),
    ),
    "GatewayRestarts": Case(starts(3), starts(2)),
    "GatewayVersionsDiffer": Case(versions("1.0", "1.1"), versions("1.1")),
}


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def firing(at: int, *names: str) -> dict[str, Any]:
    """A question to Prometheus after so many seconds: these alerts fire, whatever else is pending."""
    wanted = "|".join(names) if names else ".+"
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in names]
    expression = f'count by (alertname) (ALERTS{{alertstate="firing",alertname=~"{wanted}"}})'
    return {"expr": expression, "eval_time": f"{at}s", "exp_samples": samples}


def judge(folder: Path, *tests: dict[str, Any]) -> None:
    needs("promtool", why="the alerts cannot be judged", root=False)
    file = folder / "tests.json"
    whole = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": f"{SCRAPE_SECONDS}s",
        "tests": [{"interval": f"{SCRAPE_SECONDS}s"} | test for test in tests],
    }
    file.write_text(json.dumps(whole))
    promtool = str(shutil.which("promtool", path=PATH))
    for command in (["check", "rules", str(ALERTS)], ["test", "rules", str(file)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


def inputs(of: Series) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in of.items()]


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {rule["alert"] for rule in alerts()}


def test_each_alert_fires_where_it_should_and_not_just_below(tmp_path: Path) -> None:
    """Nor before its time: what lasts only shortly calls nobody."""
    tests: list[dict[str, Any]] = []
    for rule in alerts():
        case, lasts = CASES[rule["alert"]], seconds(rule["for"])
        name = rule["alert"]
        late = firing(lasts + 1200, name)
        asked = [firing(lasts - SCRAPE_SECONDS, name) | {"exp_samples": []}, late]
        not_fired = late | {"exp_samples": []}
        tests += [
            {"name": f"{name} fires", "input_series": inputs(case.fires), "promql_expr_test": asked},
            {"name": f"{name} not", "input_series": inputs(case.quiet), "promql_expr_test": [not_fired]},
        ]
    judge(tmp_path, *tests)


DOWN_SECONDS = 60
MINUTES_BETWEEN = 2


def restarted(number: int, before: str, down: str, after: str) -> str:
    """A series of an instance that is down for a while in its turn."""
    at = (10 + number * MINUTES_BETWEEN) * 60 // SCRAPE_SECONDS
    gone = DOWN_SECONDS // SCRAPE_SECONDS
    return f"{before}x{at - 1} {down}x{gone - 1} {after}x{SAMPLES - at - gone}"


def rolling_restart() -> Series:
    """Three instances with 20 prompts and one handshake a second; each refuses handshakes for 20 s while it stops."""
    return {name: values for number, letter in enumerate("abc") for name, values in of_one(number, letter).items()}


def of_one(number: int, letter: str) -> Series:
    """What an instance shows that is restarted in its turn, with a new version."""
    rates = {
        ("gateway_prompts_total", 'outcome="llm"'): 20,
        ("gateway_sessions_opened_total", 'result="new"'): 1,
        (UPSTREAM, 'server="llm"', 'result="ok"'): 20,
        (UPSTREAM, 'server="llm"', 'result="timeout"'): 0.1,
        ("gateway_turns_taken_over_total",): 0,
        ("process_cpu_seconds_total",): 0.3,
    }
    values = {
        "gateway_unstored_answers": 0, "gateway_listen_age_seconds": 1, "gateway_oldest_turn_seconds": 20,
        "gateway_sessions": 3000, "gateway_event_loop_lag_seconds": 0.01, "process_open_fds": 3100,
        "process_max_fds": 65536, "process_resident_memory_bytes": 1.3e8,
    }  # fmt: skip
    before_and_after: dict[tuple[str, ...], tuple[str, str, str]] = {
        ("up",): ("1+0", "0+0", "1+0"),
        ("process_start_time_seconds",): ("1000+0", "_", "2000+0"),
        ("gateway_build_info", 'version="1.0"'): ("1+0", "_", "_"),
        ("gateway_build_info", 'version="1.1"'): ("_", "_", "1+0"),
    }
    for names, rate in rates.items():
        step = f"0+{rate * SCRAPE_SECONDS}"
        before_and_after[names] = (step, "_", step)
    for name, value in values.items():
        before_and_after[name,] = (f"{value}+0", "_", f"{value}+0")
    instance = f'instance="{letter}"'
    found = {
        series(name, instance, *labels): restarted(number, *parts)
        for (name, *labels), parts in before_and_after.items()
    }
    at = (10 + number * MINUTES_BETWEEN) * 60 // SCRAPE_SECONDS
    refused = series("gateway_sessions_opened_total", instance, 'result="refused_draining"')
    return found | {refused: f"0+0x{at - 2} 20 _x2 0+0x{SAMPLES - at - 3}"}


def test_no_alert_fires_in_a_rolling_restart(tmp_path: Path) -> None:
    """Scrape by scrape, from the first instance that stops until a quarter of an hour after the last."""
    questions = [firing(at) for at in range(5 * 60, 35 * 60, SCRAPE_SECONDS)]
    judge(tmp_path, {"input_series": inputs(rolling_restart()), "promql_expr_test": questions})


def test_what_the_cases_are_made_of_is_what_a_gateway_shows(default_gateway: Gateway) -> None:
    """Metrics, labels, values and bounds of buckets, so that no alert waits for what never comes."""
    real = scrape(default_gateway)
    shown = {(sample.name, pair) for sample in real.samples for pair in sample.labels.items()}
    names = {sample.name for sample in real.samples}
    for case in CASES.values():
        for text in case.fires | case.quiet:
            name, labels = text.split("{")
            if name == "up":
                continue
            assert name in names
            for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
                if label not in ("job", "instance", "version"):
                    assert (name, (label, value)) in shown, f"no {name} has {label}={value}"


def test_promtool_finds_nothing_to_say_of_the_metrics(default_gateway: Gateway) -> None:
    needs("promtool", why="the metrics cannot be judged", root=False)
    command = [str(shutil.which("promtool", path=PATH)), "check", "metrics"]
    text = default_gateway.http.get("/metrics").text
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
