"""How a server of the SDK's can be run: whether it is stateless, and whether it replies in JSON rather than events."""

MODES = {
    "stateful-events": (False, False),
    "stateful-json": (False, True),
    "stateless-events": (True, False),
    "stateless-json": (True, True),
}
