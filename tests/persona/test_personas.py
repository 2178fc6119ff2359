"""The personas."""

import pytest

from tests.support.gateway import Gateway
from tests.support.world import NewGateway, NewWorld

BOTH_PATHS = pytest.mark.parametrize("path", ["/api/chat/personas", "/api/login/personas"])


@pytest.fixture(scope="module")
def gateway(new_world: NewWorld) -> object:
    world = new_world()
    with Gateway(world.settings) as gateway:
        world.chatdb.execute(
            """
            INSERT INTO "Persona" (id, name, description) VALUES
                (1003, '마지막', '가장 뒤'), (12, '가운데', NULL), (7, '😀 첫째', ''), (1002, 'b', 'c')
            """
        )
        yield gateway


@BOTH_PATHS
def test_all_personas_by_id_with_exactly_these_fields(gateway: Gateway, path: str) -> None:
    assert gateway.http.get(path).json() == {
        "personas": [
            {"id": 7, "name": "😀 첫째", "description": ""},
            {"id": 12, "name": "가운데", "description": None},
            {"id": 1002, "name": "b", "description": "c"},
            {"id": 1003, "name": "마지막", "description": "가장 뒤"},
        ]
    }


def test_without_personas_the_list_is_empty(new_world: NewWorld, new_gateway: NewGateway) -> None:
    gateway = new_gateway(new_world())
    for path in ("/api/chat/personas", "/api/login/personas"):
        assert gateway.http.get(path).json() == {"personas": []}
