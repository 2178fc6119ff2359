"""Addresses, however people write them, in the form that libraries and browsers read alike, or ValueError."""

import re
from unicodedata import normalize
from urllib.parse import parse_qsl, quote, unquote, urlencode

import httpx

# Scheme, login, servers, path, query. Unlike urlsplit it does not stumble over brackets in a password.
_URL = re.compile(r"([\w+]+)://(?:([^/?#]*)@)?([^/?#@]*)(/[^?#@\s\\]*)?(?:\?([^#]*))?")
_SERVER = re.compile(r"(/[^:]*|\[[0-9A-Fa-f:.]+(?:%[\w.]+)?\]|[\w.-]+)(?::([0-9]{1,5}))?")
_TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SESSION_ATTRIBUTES = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")


def origins(text: str) -> frozenset[str]:
    """Origins as browsers send them: in small letters, punycode, without a port that goes without saying."""
    parts = [part.strip().rstrip("/") for part in normalize("NFKC", text).lower().split(",") if part.strip()]
    if not parts or not all(re.fullmatch(r"https?://[^/\s?#@*]+", part) for part in parts):
        raise ValueError
    return frozenset(f"{url.scheme}://{url.netloc.decode()}" for url in map(httpx.URL, parts))


def _split(text: str, schemes: str) -> tuple[str, str, str, str, str]:
    parts = _URL.fullmatch(text)
    if parts is None or not re.fullmatch(schemes, parts[1], re.IGNORECASE):
        raise ValueError
    scheme, login, servers, path, query = parts.groups("")
    user, colon, password = login.partition(":")
    login = quote(unquote(user), safe="") + colon + quote(unquote(password), safe="")
    return scheme.lower(), f"{login}@" if login else "", servers, path, query


def _server(text: str, default_port: str) -> tuple[str, str]:
    """Host and port; a unix socket is its directory, an address of IPv6 gets brackets."""
    server = _SERVER.fullmatch(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if server is None or not 0 < int(port := server[2] or default_port) < 65536:
        raise ValueError
    return server[1], port


def http_url(text: str) -> str:
    """A base URL. A slash at its end is kept, as it counts where the path is the whole of it."""
    scheme, login, server, path, query = _split(text, "https?")
    unquote(login).encode("latin-1")  # all that aiohttp can send
    if query or _server(server, "80")[0].startswith("/"):
        raise ValueError
    return f"{scheme}://{login}{server}{path}"


def database_url(text: str, several: str = "any") -> str:
    """A DSN for asyncpg, with all servers in its query; SQLAlchemy's suffix and its `ssl=` are understood as well.

    `several` is which of several servers is meant, if `target_session_attrs` does not say so.
    """
    _, login, netloc, path, rest = _split(text, r"postgres(ql)?(\+asyncpg)?")
    query = {"sslmode" if key == "ssl" else key: value for key, value in parse_qsl(rest)}
    hosts = (unquote(netloc) or query.get("host", "")).split(",")
    ports = query.get("port", "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    servers = [_server(host, port) for host, port in zip(hosts, ports, strict=True)]
    query["host"], query["port"] = map(",".join, zip(*servers, strict=True))
    attributes = query.setdefault("target_session_attrs", several if len(servers) > 1 else "any")
    if query.get("sslmode", "prefer") not in _TLS_MODES or attributes not in _SESSION_ATTRIBUTES:
        raise ValueError
    return f"postgresql://{login}{path or '/'}?{urlencode(query)}"


def servers(dsn: str) -> str:
    """The servers of a DSN made here, for people: `a:5432,b:5433`."""
    query = dict(parse_qsl(dsn.partition("?")[2]))
    return ",".join(map(":".join, zip(query["host"].split(","), query["port"].split(","), strict=True)))
