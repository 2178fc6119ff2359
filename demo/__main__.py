"""`python -m demo` is what `make run` starts: demo/run.py, with an orderly end from the first moment on."""

import signal
import sys


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # nothing is started yet; `run` takes over when something is
    from demo import run  # noqa: PLC0415  # the slow part, in which a Ctrl-C should not show a traceback

    return run.main()


if __name__ == "__main__":
    sys.exit(main())
