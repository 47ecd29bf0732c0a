"""Each alert is raised where it should be, and isn't where all is well: told by promtool, where that is on the path."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit import PROJECT

RULES = PROJECT / "helm" / "tierproxy" / "alerts" / "tierproxy.yaml"
ALERTS = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
AT = "job='tierproxy',instance='a:9180'"

Series = dict[str, str]
"""A series' name and own labels, and its values at each minute as promtool writes them: `0+1x180` counts up by one."""

EVER = "x180"
WELL: Series = {
    "tierproxy_build_info{version='1'}": f"1{EVER}",
    "tierproxy_ready{part='gateway'}": f"1{EVER}",
    "tierproxy_client_connections": f"100{EVER}",
    "tierproxy_client_connections_limit": f"10000{EVER}",
    "tierproxy_connections_refused_total": f"0{EVER}",
    "tierproxy_event_loop_lag_seconds_bucket{le='0.001'}": f"0+120{EVER}",
    "tierproxy_event_loop_lag_seconds_bucket{le='0.5'}": f"0+120{EVER}",
    "tierproxy_event_loop_lag_seconds_bucket{le='+Inf'}": f"0+120{EVER}",
    "tierproxy_request_seconds_bucket{api='Metadata',tier='hot',le='0.01'}": f"0+60{EVER}",
    "tierproxy_request_seconds_bucket{api='Metadata',tier='hot',le='2.5'}": f"0+60{EVER}",
    "tierproxy_request_seconds_bucket{api='Metadata',tier='hot',le='+Inf'}": f"0+60{EVER}",
    "tierproxy_worker_restarts_total{role='gateway'}": f"1{EVER}",
    "process_open_fds": f"100{EVER}",
    "process_max_fds": f"1000{EVER}",
    "tierproxy_config_refused{why='faults'}": f"0{EVER}",
    "tierproxy_troubles_open{part='archiver'}": f"0{EVER}",
    "tierproxy_partitions_at_risk": f"0{EVER}",
    "tierproxy_gaps_total": f"3{EVER}",
    "tierproxy_partitions_stopped": f"0{EVER}",
    "tierproxy_archive_lag_seconds{topic='t'}": f"600{EVER}",
    "tierproxy_trim_lag_seconds{topic='t'}": f"60{EVER}",
    "tierproxy_transaction_stall_seconds{topic='t'}": f"10{EVER}",
    "tierproxy_holes{topic='t'}": f"0{EVER}",
    "tierproxy_histories_rewritten_total": f"1{EVER}",
    "tierproxy_segments_damaged_total": f"0{EVER}",
    "tierproxy_batches_damaged_total": f"1{EVER}",
    "tierproxy_damaged_reads_total{what='chunk'}": f"1{EVER}",
    "tierproxy_cold_fetch_seconds_count{outcome='records'}": f"0+60{EVER}",
    "tierproxy_cold_fetch_seconds_count{outcome='empty'}": f"0+30{EVER}",
    "tierproxy_cold_fetch_seconds_count{outcome='error'}": f"0{EVER}",
    "tierproxy_store_requests_total{operation='get_range'}": f"0+60{EVER}",
    "tierproxy_store_errors_total{operation='get',kind='NotFound'}": f"0+60{EVER}",
    "tierproxy_store_errors_total{operation='get_range',kind='Unavailable'}": f"0+1{EVER}",
    "tierproxy_store_request_seconds_bucket{operation='get_range',le='0.1'}": f"0+60{EVER}",
    "tierproxy_store_request_seconds_bucket{operation='get_range',le='10'}": f"0+60{EVER}",
    "tierproxy_store_request_seconds_bucket{operation='get_range',le='+Inf'}": f"0+60{EVER}",
    "tierproxy_disk_cache_errors_total{kind='read'}": f"2{EVER}",
    "tierproxy_limit_refusals_total{limit='cold_in_flight'}": f"0{EVER}",
}
"""Nothing is wrong; what was wrong long ago is still counted."""

ILL: dict[str, Series] = {
    "TierproxyAbsent": {"tierproxy_build_info{version='1'}": f"_{EVER}"},
    "TierproxyNotReady": {"tierproxy_ready{part='gateway'}": f"0{EVER}"},
    "TierproxyConnectionsRefused": {"tierproxy_connections_refused_total": f"0+1{EVER}"},
    "TierproxyConnectionsNearLimit": {"tierproxy_client_connections": f"8600{EVER}"},
    "TierproxyEventLoopLate": {"tierproxy_event_loop_lag_seconds_bucket{le='0.001'}": f"0+100{EVER}"},
    "TierproxyBrokersLate": {"tierproxy_request_seconds_bucket{api='Metadata',tier='hot',le='0.01'}": f"0+1{EVER}"},
    "TierproxyWorkersDie": {"tierproxy_worker_restarts_total{role='gateway'}": f"0+1{EVER}"},
    "TierproxyFilesRunOut": {"process_open_fds": f"950{EVER}"},
    "TierproxyConfigRefused": {"tierproxy_config_refused{why='faults'}": f"1{EVER}"},
    "TierproxyTroubleLasts": {"tierproxy_troubles_open{part='archiver'}": f"1{EVER}"},
    "TierproxyRecordsAtRisk": {"tierproxy_partitions_at_risk": f"1{EVER}"},
    "TierproxyRecordsLost": {"tierproxy_gaps_total": "0x110 1x70"},
    "TierproxyPartitionsStopped": {"tierproxy_partitions_stopped": f"1{EVER}"},
    "TierproxyArchiveLags": {"tierproxy_archive_lag_seconds{topic='t'}": f"4000{EVER}"},
    "TierproxyTrimsLag": {"tierproxy_trim_lag_seconds{topic='t'}": f"4000{EVER}"},
    "TierproxyTransactionStalls": {"tierproxy_transaction_stall_seconds{topic='t'}": f"2000{EVER}"},
    "TierproxyHolesOpen": {"tierproxy_holes{topic='t'}": f"1{EVER}"},
    "TierproxyHistoryRewritten": {"tierproxy_histories_rewritten_total": "0x100 1x80"},
    "TierproxyBytesDamaged": {"tierproxy_damaged_reads_total{what='chunk'}": "0x100 1x80"},
    "TierproxyColdReadsFail": {"tierproxy_cold_fetch_seconds_count{outcome='error'}": f"0+1{EVER}"},
    "TierproxyColdReadersWait": {"tierproxy_cold_fetch_seconds_count{outcome='empty'}": f"0+600{EVER}"},
    "TierproxyStoreErrors": {"tierproxy_store_errors_total{operation='get_range',kind='Unavailable'}": f"0+30{EVER}"},
    "TierproxyStoreSlow": {"tierproxy_store_request_seconds_bucket{operation='get_range',le='0.1'}": f"0+6{EVER}"},
    "TierproxyDiskCacheFails": {"tierproxy_disk_cache_errors_total{kind='read'}": f"0+1{EVER}"},
    "TierproxyLimitsRefuse": {"tierproxy_limit_refusals_total{limit='cold_in_flight'}": f"0+1{EVER}"},
}


def example(series: Series, raised: set[str]) -> dict[str, Any]:
    """After two hours."""
    firing = "count by (alertname) (ALERTS{alertstate='firing'})"
    samples = [{"labels": f"{{alertname='{alert}'}}", "value": 1} for alert in sorted(raised)]
    return {
        "interval": "1m",
        "input_series": [{"series": with_target(name), "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": "2h", "exp_samples": samples}],
    }


def with_target(series: str) -> str:
    name, _, labels = series.rstrip("}").partition("{")
    return f"{name}{{{', '.join(filter(None, [labels, AT]))}}}"


def test_there_is_an_example_of_each_alert() -> None:
    assert list(ILL) == ALERTS
    assert all(changed.keys() <= WELL.keys() for changed in ILL.values())


def test_alerts_are_raised_where_they_should_be_and_nowhere_else(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no promtool on the path")
    examples = [example(WELL, set()), *(example(WELL | changed, {alert}) for alert, changed in ILL.items())]
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": examples}))
    done = subprocess.run([promtool, "test", "rules", str(tests)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
