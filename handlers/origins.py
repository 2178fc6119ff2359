"""The origin under which a browser reached this server."""

from __future__ import annotations

from ipaddress import ip_address

from starlette.websockets import WebSocket

from service.instance import Instance


def own_origin(websocket: WebSocket, instance: Instance) -> str:
    """Directly, or through a trusted proxy."""
    is_secure, host = websocket.scope["gateway.is_tls"], websocket.headers.get("host", "")
    peer = websocket.scope["gateway.peer"]
    if peer and any(ip_address(peer) in network for network in instance.settings.trusted_proxies):
        is_secure = websocket.headers.get("x-forwarded-proto", "https" if is_secure else "http") in ("https", "wss")
        host = websocket.headers.get("x-forwarded-host", host)
    return f"{'https' if is_secure else 'http'}://{host}".lower()
