"""What Prometheus is told of the fleet and of alerts: the same findings that the page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gossipfl.hub.database import Database
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.model import Kind, State
from gossipfl.hub.reports.costs import Tariffs


class FleetFigures(Collector):
    """`alerts`: how many fire by kind, and how many messages wait. No figure names a device."""

    def __init__(self, database: Database, feed: Feed, alerts: tuple[dict[str, int], int]) -> None:
        self._database = database
        self._feed = feed
        self._alerts = alerts

    def collect(self) -> Iterator[Metric]:
        page = self._feed.page(Tariffs())
        states = Counter(row.state for row in page.devices)
        yield _by("devices", "devices by what they are to the fleet", "state",
                  {state.value: states[state] for state in State})  # fmt: skip
        kinds = Counter(finding.kind for finding in page.findings)
        yield _by("findings", "what needs a person now, by kind", "kind",
                  {kind.value: kinds[kind] for kind in Kind})  # fmt: skip
        firing, waiting = self._alerts
        yield _by("alerts", "alerts that fire, by kind", "kind",
                  {kind.value: firing.get(kind.value, 0) for kind in Kind})  # fmt: skip
        yield _one("alert_messages_waiting", "messages of alerts that were not sent yet", waiting)
        yield _one("database_full", "whether nothing can be written", self._database.is_full)
        yield _one("page_ready", "whether the log was read and the database answers",
                   self._feed.is_ready)  # fmt: skip
        proof = page.evidence
        if proof is not None and proof.checkpoints:
            newest = proof.checkpoints[-1].time
            yield _one("checkpoint_time_seconds", "when the newest checkpoint was signed", newest)
        if page.learning is not None and page.learning.accuracy:
            yield _one("accuracy", "of the merged model, or the median of what devices publish, "
                       "on the public examples", page.learning.accuracy[-1].middle)  # fmt: skip
        if page.learning is not None and page.learning.disagreement:
            apart = page.learning.disagreement[-1].middle
            yield _one("disagreement", "mean distance of models, over the way come", apart)
        spend = page.privacy
        if spend is not None and spend.epsilon_max and spend.bars:
            spent = max(bar.spent or 0.0 for bar in spend.bars)
            share = spent / spend.epsilon_max
            yield _one("budget_spent_ratio", "of the device that has spent most", share)


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gossipfl_hub_{name}", text, float(value))


def _by(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"gossipfl_hub_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], float(count))
    return family
