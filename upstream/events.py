"""Server-sent events by WHATWG's rules, from bytes in pieces of any size."""

from collections.abc import Iterator

from upstream.replies import ReplyUnusable

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What is sent beside the text and the last object may be so many times as large as they.
OTHER_TIMES = 8


class Events:
    """The data of one stream's events. An event that the end of the stream cuts off does not count."""

    def __init__(self, max_bytes: int) -> None:
        self._max_data = max_bytes
        self._max_line = len(b"data: ") + max_bytes
        self._other_left = OTHER_TIMES * max_bytes
        self._unfinished: list[bytes] = []  # what has come of a line; joined once, when its end has come
        self._unfinished_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._is_start = True
        self._is_after_return = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of each event that ends in this piece. Raises ReplyUnusable beyond a limit."""
        if self._is_after_return and piece:
            piece = piece.removeprefix(b"\n")  # the second half of a CRLF
            self._is_after_return = False
        for line in piece.splitlines(keepends=True):  # bytes are split at LF, CR and CRLF, and nowhere else
            if line.endswith((b"\n", b"\r")):
                data = self._read_line(b"".join((*self._unfinished, line)).rstrip(b"\r\n"))
                if data is not None:
                    yield data
            else:
                self._unfinished.append(line)
                self._unfinished_bytes += len(line)
                self._check_line(self._unfinished_bytes)
        if piece:
            self._is_after_return = piece.endswith(b"\r")

    def _read_line(self, line: bytes) -> bytes | None:
        """The data of the event that ends with this line, if one does."""
        self._unfinished, self._unfinished_bytes = [], 0
        self._check_line(len(line))
        if self._is_start:
            self._is_start, line = False, line.removeprefix(BYTE_ORDER_MARK)
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add_data(value.removeprefix(b" "))
            return None
        self.count(len(line) + 1)
        if line or not self._data:
            return None
        data = b"\n".join(self._data)
        self._data, self._data_bytes = [], 0
        return data

    def _add_data(self, value: bytes) -> None:
        self._data_bytes += len(value) + bool(self._data)
        if self._data_bytes > self._max_data:
            raise ReplyUnusable("the data of an event is too large")
        self._data.append(value)

    def _check_line(self, line_bytes: int) -> None:
        if line_bytes > self._max_line:
            raise ReplyUnusable("a line is too long")

    def count(self, other_bytes: int) -> None:
        """Counts what is sent beside the text and the last object. Raises ReplyUnusable if it is too much."""
        self._other_left -= other_bytes
        if self._other_left < 0:
            raise ReplyUnusable("too much is sent beside the answer")
