"""What /metrics says, parsed as Prometheus parses it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway import Gateway


@dataclass(frozen=True)
class Sample:
    """One line: `name` with its suffix, `family` without."""

    name: str
    labels: Mapping[str, str]
    value: float
    family: str


class Scrape:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = list(self._samples())

    def _samples(self) -> Iterator[Sample]:
        for family in self.families:
            for sample in family.samples:
                yield Sample(sample.name, sample.labels, sample.value, family.name)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels; 0 if there is none."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name == name and all(sample.labels.get(label) == value for label, value in labels.items())
        )

    def named(self, name: str) -> list[Sample]:
        """The samples of this name."""
        return [sample for sample in self.samples if sample.name == name]


def scrape(gateway: Gateway) -> Scrape:
    """Ask /metrics as Prometheus does, which must work."""
    response = gateway.http.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=")
    return Scrape(response.text)


def difference(before: Scrape, after: Scrape, *families: str) -> dict[str, float]:
    """What has grown: counters (and the counts of histograms) of these families by `name{value}`.

    Of several labels the values stand in the reverse order of the labels' names: `{llm,ok}` is server and result.
    """
    grown: dict[str, float] = {}
    for sample in after.samples:
        if sample.family not in families or not sample.name.endswith(("_total", "_count")):
            continue
        by = sample.value - before.value(sample.name, **sample.labels)
        if by:
            values = ",".join(sample.labels[label] for label in sorted(sample.labels, reverse=True))
            grown[f"{sample.name}{{{values}}}"] = by
    return grown
