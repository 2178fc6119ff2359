"""A small reader of PromQL: enough to know which metrics, matchers and groupings an expression has."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# What Prometheus adds to every target.
OF_PROMETHEUS = {"up"}
LABELS_OF_PROMETHEUS = {"instance", "job", "le"}

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\[[^\]]+\])|(?P<variable>\$\{?\w+\}?)"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?)|(?P<name>[a-zA-Z_:][\w:]*)"""
    r"""|(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^(){},=<>])"""
)
_GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "bool", "offset"}


class NotPromQL(Exception):
    """The expression has something that is not understood."""


@dataclass(frozen=True)
class Matcher:
    """One condition on a label."""

    label: str
    operator: str
    value: str

    def matches(self, value: str) -> bool:
        """Whether a label's value fulfils it; what Grafana fills in fulfils everything."""
        if "$" in self.value:
            return True
        is_same = bool(re.fullmatch(self.value, value)) if "~" in self.operator else self.value == value
        return is_same != self.operator.startswith("!")


@dataclass(frozen=True)
class Selector:
    """A metric with its conditions; those on labels of Prometheus' own are left out."""

    metric: str
    matchers: tuple[Matcher, ...]


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, position = [], 0
    while position < len(expression):
        token = _TOKEN.match(expression, position)
        if token is None or token.lastgroup is None:
            raise NotPromQL(f"{expression!r} from {expression[position:]!r}")
        if token.lastgroup != "space":
            found.append((token.lastgroup, token[0]))
        position = token.end()
    if [text for _, text in found].count("(") != [text for _, text in found].count(")"):
        raise NotPromQL(f"{expression!r}: brackets")
    return found


def _until(tokens: list[tuple[str, str]], start: int, end: str) -> list[tuple[str, str]]:
    return tokens[start : next(n for n in range(start, len(tokens)) if tokens[n][1] == end)]


def _matchers(tokens: list[tuple[str, str]]) -> Iterator[Matcher]:
    texts = [text for _, text in tokens if text != ","]
    for label, operator, value in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        if label not in LABELS_OF_PROMETHEUS:
            yield Matcher(label, operator, value[1:-1])


def selectors(expression: str) -> list[Selector]:
    """Every metric that the expression asks for."""
    tokens = [*_tokens(expression), ("end", ""), ("end", "")]
    found, n = [], 0
    while n < len(tokens):
        kind, text = tokens[n]
        following = tokens[n + 1][1] if n + 1 < len(tokens) else ""
        if kind == "name" and text in _GROUPING and following == "(":
            n += len(_until(tokens, n, ")"))
        elif text == "label_values" and following == "(":
            # Grafana's own: label_values(metric, label)
            found.append(Selector(tokens[n + 2][1], ()))
            n += len(_until(tokens, n, ")"))
        elif kind == "name" and text not in _WORDS | _GROUPING and following not in {"(", *_GROUPING}:
            inside = _until(tokens, n + 2, "}") if following == "{" else []
            found.append(Selector(text, tuple(_matchers(inside))))
            n += len(inside) + 2 if following == "{" else 0
        n += 1
    return found


def metrics(expression: str) -> set[str]:
    """The names of the metrics in an expression."""
    return {selector.metric for selector in selectors(expression)}


def grouped_by(expression: str) -> set[str]:
    """The labels that the expression groups or joins by."""
    tokens = _tokens(expression)
    return {
        name
        for n, (_, text) in enumerate(tokens[:-1])
        if text in _GROUPING and tokens[n + 1][1] == "("
        for kind, name in _until(tokens, n + 2, ")")
        if kind == "name"
    }
