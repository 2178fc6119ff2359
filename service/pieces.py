"""Splitting what was read at once, so that a limit is looked at before all of it has been handled."""

# 21 of the smallest WebSocket frames fit into a piece; 85 into what is short enough not to be split.
SHORT_BYTES, PIECE_BYTES = 512, 128


def split(data: bytes) -> list[bytes]:
    if len(data) <= SHORT_BYTES:
        return [data]
    return [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
