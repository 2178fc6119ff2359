"""The codes with which the gateway closes a WebSocket."""

POLICY_VIOLATION = 1008
INTERNAL_ERROR = 1011
RESTARTING = 1012
SUPERSEDED = 4001
