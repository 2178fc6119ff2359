"""Asks the gateway in this container how it is: `python healthcheck.py [ready]`. The exit status is 0 or 1."""

import http.client
import os
import sys
from ipaddress import ip_address

host = (os.environ.get("HOST") or "0.0.0.0").strip().replace("localhost", "127.0.0.1")
if ip_address(host).is_unspecified:
    host = "127.0.0.1"  # `::` takes IPv4 as well
port = int(os.environ.get("PORT") or 8001)
# Readiness itself takes at most half of this time.
connection = http.client.HTTPConnection(host, port, timeout=4)
try:
    connection.request("GET", "/api/health/ready" if sys.argv[1:] == ["ready"] else "/api/health")
    response = connection.getresponse()
    sys.stdout.write(f"{response.read().decode('utf-8', 'replace')}\n")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"no answer on {host}, port {port}: {error}")
sys.exit(response.status != 200)
