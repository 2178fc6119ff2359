"""How hard the faults are: `FAULTS=long` is the whole matrix, anything else the short form of every row."""

import os
from dataclasses import dataclass, field
from typing import Any

LONG = os.environ.get("FAULTS") == "long"


@dataclass(frozen=True)
class Scale:
    """Visitors who talk all the time, visitors with one answer in hand each, and so on; seconds of an outage."""

    talking: int
    in_hand: int
    leaving: int
    misbehaving: int
    deaf_prompts: int
    stops: int
    storms: int  # how often every socket is cut in the middle of an answer
    rounds: int  # how often something is cut or killed under load
    outage: float
    thinking: tuple[float, float]  # seconds the LLM server takes
    seconds: float  # a test may take
    settings: dict[str, Any] = field(default_factory=dict)


SCALE = (
    Scale(
        talking=30,
        in_hand=200,
        leaving=500,
        misbehaving=100,
        deaf_prompts=50,
        stops=1000,
        storms=10,
        rounds=20,
        outage=10.0,
        thinking=(0.1, 1.0),
        seconds=240,
        settings={"HTTPX_TIMEOUT": "5"},
    )
    if LONG
    else Scale(
        talking=6,
        in_hand=40,
        leaving=40,
        misbehaving=20,
        deaf_prompts=25,
        stops=50,
        storms=3,
        rounds=3,
        outage=1.5,
        thinking=(0.05, 0.4),
        seconds=120,
        settings={"HTTPX_TIMEOUT": "4", "DB_TIMEOUT": "0.6", "SEND_TIMEOUT": "1"},
    )
)
SETTLED_SECONDS = 60.0 if LONG else 20.0
