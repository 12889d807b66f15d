"""Ray's own metrics of a rendering, scraped as Prometheus does from a Ray of this machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])
# In a process of its own: it may have a Ray of its own beside that of other tests.
SCRIPT = """
import logging, sys, time, urllib.request
import ray
ray.init(
    address="local",  # whatever other tests have started
    num_cpus=1,
    include_dashboard=False,
    log_to_driver=False,
    logging_level=logging.ERROR,
)
from made_results import made_report, made_result
from synth.render_log import RenderLog
from synth.render_metrics import RenderMetrics
log = RenderLog(5, 50)
log.found(vars(made_report(0)))
log.export(RenderMetrics())
log.finish(made_result(1, 3.0, reasons={"cannot be decoded": 2, "too \\"short\\"": 1}))
log.finish(made_result(2, 30.0))
log.retry(3, "crashed")
log.fail(3, "crashed")
(node,) = ray.nodes()
for _ in range(600):
    time.sleep(0.2)
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    try:
        text = urllib.request.urlopen(url, timeout=5).read().decode()
    except OSError:
        continue
    if "seamline_shards_failed" in text:
        print(text)
        break
"""


@pytest.mark.slow
def test_prometheus_finds_the_metrics() -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "RAY_metrics_report_interval_ms": "1000", "PYTHONPATH": PATH},
        stdout=subprocess.PIPE,
        timeout=200,
        check=True,
        text=True,
    )
    lines = re.findall(r"^ray_(seamline_\w+)\{(.*)\} (\S+)$", found.stdout, re.MULTILINE)
    values = {
        name: float(value) for name, _, value in lines if not name.endswith(("_bucket", "_sum"))
    }
    by_reason = {
        re.findall(r'reason="((?:\\.|[^"\\])*)"', tags)[0]: float(value)
        for name, tags, value in lines
        if name == "seamline_samples_rejected_total"
    }
    del values["seamline_samples_rejected_total"]
    assert by_reason == {"cannot be decoded": 2.0, 'too \\"short\\"': 1.0}
    assert values == {
        "seamline_samples_rendered_total": 17.0,
        "seamline_shards_done_total": 2.0,
        "seamline_shards_retried_total": 1.0,
        "seamline_shards_failed_total": 1.0,
        "seamline_shards_left": 2.0,
        "seamline_samples_left": 20.0,
        "seamline_shard_seconds_count": 2.0,
        "seamline_worker_seconds_total": 33.0,
        "seamline_worker_peak_bytes": 1e8,
    }
