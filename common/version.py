"""The gateway's name and version."""

NAME, VERSION = "card-chat-gateway", "1.0.0"
