"""HTTP and WebSocket handlers: each reads a request, calls one thing, answers."""
