"""names.py SUBJECT METRICS: whether what deploy/ and docs/ name is there. METRICS is what /metrics answered."""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
subject, metrics = sys.argv[1], pathlib.Path(sys.argv[2]).read_text()
NAME = re.compile(r"\btodo_backend_[a-z0-9_]+")
exposed = {re.match(r"[a-z0-9_]+", line)[0] for line in metrics.splitlines() if line and line[0] != "#"}
labels = set(re.findall(r'[{,]([a-z_]+)="', metrics)) | {"instance", "job"}
assert exposed, "the service showed no metrics"


def read(name):
    return (ROOT / name).read_text()


def expressions(panels):
    return [target["expr"] for panel in panels for target in panel["targets"]]


dashboard = json.loads(read("deploy/grafana-dashboard.json"))
# Comments and texts may name metrics too: they are held to the same.
used = {
    "dashboard": set(NAME.findall(json.dumps(dashboard))),
    "alerts": set(NAME.findall(read("deploy/alerts.yml"))),
    "alert-tests": set(NAME.findall(read("deploy/alerts_test.yml"))),
}
problems = []
if subject in used:
    assert used[subject], f"{subject} uses no metrics at all"
    problems = [f"{name} is not in /metrics" for name in sorted(used[subject] - exposed)]
if subject == "dashboard":
    panels = dashboard["panels"]
    problems += [f"panel without a query: {panel['title']}" for panel in panels if not panel["targets"]]
    by = {label for e in expressions(panels) for group in re.findall(r"by \(([^)]*)\)", e) for label in group.split(", ")}
    problems += [f"label {label} is not in /metrics" for label in sorted(by - labels)]
    ids = [panel["id"] for panel in panels]
    problems += ["two panels have the same id"] if len(ids) != len(set(ids)) else []
if subject == "runbooks":
    headings = re.findall(r"^#+ (.*)$", read("docs/operations.md"), re.M)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    alerts = read("deploy/alerts.yml")
    named = re.findall(r"runbook_url: docs/operations\.md#(\S+)", alerts)
    count = alerts.count("- alert: ")
    for what in ("summary: ", "description: ", "runbook_url: "):
        problems += [f"{count} alerts, but not as many {what}"] if alerts.count(what) != count else []
    problems += [f"docs/operations.md has no #{anchor}" for anchor in named if anchor not in anchors]
if subject == "coverage":
    # What the service measures can be seen somewhere.
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used["dashboard"] | used["alerts"]}
    problems = [f"{name} is in neither the dashboard nor the alerts" for name in sorted(families - seen)]
    tested = set(re.findall(r"alertname: (\w+)", read("deploy/alerts_test.yml")))
    alerts = set(re.findall(r"- alert: (\w+)", read("deploy/alerts.yml")))
    problems += [f"no test of the alert {name}" for name in sorted(alerts - tested)]
print("\n".join(problems))
sys.exit(1 if problems else 0)
