"""A gateway under fire, and how many inputs it is tried with."""

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, configuration, settings

from tests.support.background import background
from tests.support.chat import Visitor, new_id, receive
from tests.support.gateway import Gateway
from tests.support.processes import temporary_directory
from tests.support.world import World

FRAMES = "WebSocket messages: text, binary, JSON of all shapes, damaged frames"
IS_LONG = os.environ.get("FUZZ") == "long"

MAX_CHARS = 4000
MAX_FRAME_BYTES = 65536
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

configuration.set_hypothesis_home_dir(temporary_directory("gateway-fuzz-"))


def cases(short: int, long: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many examples; the short form tries the same ones every time."""
    return settings(
        max_examples=long if IS_LONG else short,
        derandomize=not IS_LONG,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


class Target:
    """A gateway under fire: a visitor whose session must survive everything, and what was counted."""

    def __init__(self, gateway: Gateway, world: World) -> None:
        self.gateway = gateway
        self.world = world
        self.tried: Counter[str] = Counter()
        self.visitor: Visitor = background.run(self._visit())

    async def _visit(self) -> Visitor:
        socket = await self.gateway.connect(ping_interval=None)
        return Visitor(self.gateway, socket, await receive(socket))

    def exchange(self, frame: str | bytes, expect: Callable[[dict[str, Any]], None]) -> None:
        """Send one frame, judge the only answer to it, and see that the session still takes a prompt."""
        self.tried[FRAMES] += 1
        background.run(self._exchange(frame, expect))

    async def _exchange(self, frame: str | bytes, expect: Callable[[dict[str, Any]], None]) -> None:
        await self.visitor.send(frame)
        expect(await self.visitor.receive())
        if not IS_LONG or self.tried[FRAMES] % 5 == 0:  # in between, the next frame's answer shows the same
            await self.goes_on()

    async def goes_on(self) -> None:
        """A valid prompt of the same session is answered, and nothing else comes before its answer."""
        text = f"계속 {new_id()}"
        assert (await self.visitor.ask(text))["message"] == f"re: {text}"

    @property
    def resident_mib(self) -> float:
        return float(psutil.Process(self.gateway.process.pid).memory_info().rss) / 2**20
