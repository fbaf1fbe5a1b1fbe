"""The shipped alert rules ask for metrics that hub and agent really export."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pagekit import story
from pageserver import served
from prometheus_client import CollectorRegistry, generate_latest
from starkit import stand

from device_agent.agent import FIGURES
from gossipfl.hub.alerts.figures import FleetFigures
from gossipfl.hub.page.model import Kind
from gossipfl.net.local import LocalListener
from gossipfl.net.traffic import Traffic

RULES = "examples/prometheus/gossipfl-alerts.yml"
SAMPLE = re.compile(r"^(gossipfl_\w+)", re.MULTILINE)
ASKED = re.compile(r"\bgossipfl_\w+")


async def of_hub(tmp_path: Path) -> str:
    import urllib.request

    async with stand(tmp_path, leads=False) as hub:
        import asyncio

        def get() -> str:
            request = urllib.request.Request(
                f"{hub.url}/metrics", headers={"Authorization": f"Bearer {hub.token}"}
            )
            with urllib.request.urlopen(request) as answer:
                found: str = answer.read().decode()
                return found

        # A refusal, so that their counter has a value.
        with pytest.raises(Exception, match="401"):
            await asyncio.to_thread(urllib.request.urlopen, f"{hub.url}/api/v1/alerts")
        return await asyncio.to_thread(get)


def of_agent() -> str:
    figures = dict.fromkeys(FIGURES, 1.0)
    listener = LocalListener(lambda: None, Traffic(), lambda: figures)  # type: ignore[arg-type,return-value]
    return generate_latest(listener._registry).decode()


async def test_the_rules_ask_for_what_is_exported(root: Path, tmp_path: Path) -> None:
    hub = await of_hub(tmp_path)
    exported = set(SAMPLE.findall(hub)) | set(SAMPLE.findall(of_agent()))
    # Supervised tasks alone have restarts; the stand has none.
    exported.add("gossipfl_hub_restarts_total")
    assert "# TYPE gossipfl_hub_restarts_total counter" in hub
    rules = "\n".join(line for line in (root / RULES).read_text().splitlines() if "expr:" in line)
    asked = set(ASKED.findall(rules))
    assert len(asked) >= 10
    assert asked <= exported
    kinds = set(re.findall(r'kind="(\w+)"', rules))
    assert kinds <= {kind.value for kind in Kind}
    for kind in kinds:
        assert f'gossipfl_hub_findings{{kind="{kind}"}}' in hub


async def test_figures_of_the_fleet_are_those_of_the_page(tmp_path: Path) -> None:
    async with served(tmp_path, story()) as hub:
        registry = CollectorRegistry()
        registry.register(FleetFigures(hub.database, hub.feed, ({"silence": 2}, 3)))
        text = generate_latest(registry).decode()
    assert 'gossipfl_hub_devices{state="left out"} 1.0' in text
    assert 'gossipfl_hub_devices{state="live"} 6.0' in text
    assert 'gossipfl_hub_findings{kind="quarantine"} 1.0' in text
    assert 'gossipfl_hub_alerts{kind="silence"} 2.0' in text
    assert "gossipfl_hub_alert_messages_waiting 3.0" in text
    assert "gossipfl_hub_database_full 0.0" in text
    assert re.search(r"gossipfl_hub_checkpoint_time_seconds \d", text)


def test_promtool_takes_the_rules(root: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", root / RULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
