"""Asks the gateway in this container how it is: `python healthcheck.py [ready]`. The exit status is 0 or 1."""

import http.client
import os
import sys

TIMEOUT_SECONDS = 4  # readiness itself takes at most half of it


def main() -> int:
    path = "/api/health/ready" if sys.argv[1:] == ["ready"] else "/api/health"
    port = int(os.environ.get("PORT") or 8001)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"no answer on port {port}: {error}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0 if response.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
