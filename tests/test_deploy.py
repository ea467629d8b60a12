"""What lies in deploy/ fits the code."""

import json
import re
from pathlib import Path

from workers.login.admission import ESTIMATE_ERROR

DEPLOY = Path(__file__).parents[1] / "deploy"
SOURCES = [
    Path(__file__).parents[1] / name
    for name in ("runtime/exporting.py", "socketd/node.py", "workers/operations/figures.py")
]


def test_the_dashboard_asks_for_figures_that_there_are() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "lobbyd.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"lobbyd_\w+", target["expr"])
    }
    served = {name for path in SOURCES for name in re.findall(r'"(lobbyd_\w+)"', path.read_text())}
    served |= {family.name for family in ESTIMATE_ERROR.describe()}
    assert {re.sub("_(total|bucket)$", "", name) for name in asked} <= served
    assert len(asked) > 10
