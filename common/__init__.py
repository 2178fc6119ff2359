"""What every part relies on: the version, kinds of error, logs, metrics, background tasks, limits, ids."""

NAME, VERSION = "card-chat-gateway", "1.0.0"
