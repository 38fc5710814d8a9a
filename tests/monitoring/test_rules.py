"""promtool's opinion of the alert rules; and for each alert a cluster that makes it fire, and one that does not."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.monitoring import alerts, rule_file
from support.promql import names

Series = dict[str, str]

ROUTER = 'namespace="t",job="tessera-router",instance="r"'
SHARD = 'namespace="t",job="tessera-shard",instance="s"'
ON_ROUTER, ON_SHARD = {"job": "tessera-router", "instance": "r"}, {"job": "tessera-shard", "instance": "s"}
MODEL = {"model_name": "m"}
ONE = "1+0x3000"
NONE = "0+0x3000"
DAY_S = 86_400


@dataclass(frozen=True)
class Case:
    """What Prometheus scrapes every minute (`first + step x times`), and what fires then.

    Attributes:
        fires: series with which the alert fires.
        quiet: worlds with which it does not, although something like it is there.
        labels: that the firing alert has, beside name, severity and namespace.
        at: when it is looked, by which time it must have fired.
    """

    fires: Series
    quiet: tuple[Series, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    at: str = "40m"


def _requests(ok: float, failed: float, status: str = "UNAVAILABLE") -> Series:
    """Return requests a minute."""
    name = f'tessera_requests_total{{{ROUTER},model_name="m",method="Predict",entrypoint="GRPC",status='
    return {f'{name}"OK"}}': f"0+{ok}x3000", f'{name}"{status}"}}': f"0+{failed}x3000"}


def _owners(owners: str, connected: str = ONE) -> Series:
    return {
        f'tessera_placement_ready_owners{{{ROUTER},model_name="m"}}': owners,
        f'tessera_placement_replicas{{{ROUTER},model_name="m"}}': "2+0x3000",
        f"tessera_store_connected{{{ROUTER}}}": connected,
    }


def _epochs(router: str, shard: str) -> Series:
    return {
        f'tessera_placement_epoch{{{ROUTER},model_name="m"}}': router,
        f'tessera_placement_epoch{{{SHARD},model_name="m"}}': shard,
    }


def _operation(state: str, fetched: str = NONE) -> Series:
    labels = f'{SHARD},model_name="m",kind="reshard",state="{state}"'
    return {
        f"tessera_operation_state{{{labels}}}": ONE,
        f"tessera_staging_fetched_bytes_total{{{SHARD}}}": fetched,
    }


def _stored(connected: str, age: str = "", shard_connected: str = NONE) -> Series:
    found = {
        f"tessera_store_connected{{{ROUTER}}}": connected,
        f"tessera_store_connected{{{SHARD}}}": shard_connected,
    }
    return found | ({f"tessera_store_last_contact_age_seconds{{{ROUTER}}}": age} if age else {})


def _certificate(from_s: int, to_s: int) -> Series:
    return {
        f"tessera_certificate_start_timestamp_seconds{{{ROUTER}}}": f"{from_s}+0x3000",
        f"tessera_certificate_expiration_timestamp_seconds{{{ROUTER}}}": f"{to_s}+0x3000",
    }


def _batches(name: str, refused: float, tasks: float = 1000) -> Series:
    region = f'{ROUTER},model_name="m",version="1",op_name="mlp"'
    return {
        f"tessera_batch_tasks_total{{{region}}}": f"0+{tasks}x3000",
        f"tessera_batch_{name}}}".replace("{", f"{{{region},", 1): f"0+{refused}x3000",
    }


def _one(name: str, target: str, values: str) -> Series:
    return {f"{name}{{{target}}}": values}


def _memory(used: str, limit: str) -> Series:
    return _one("process_resident_memory_bytes", SHARD, used) | _one("tessera_memory_limit_bytes", SHARD, limit)


_LOADS = f'{ROUTER},model_name="m",status='
_LOGGED = f'{ROUTER},model_name="m",status_code='
_REGION = {**MODEL, "op_name": "mlp"}
CASES: Mapping[str, Case] = {
    "TesseraErrorBudgetBurnsFast": Case(
        _requests(6000, 120),
        (_requests(6000, 120, "INVALID_ARGUMENT"), _requests(6000, 20), _requests(5, 0.1)),
        MODEL,
    ),
    "TesseraErrorBudgetBurnsSlowly": Case(
        _requests(6000, 24), (_requests(6000, 5), _requests(6000, 24, "CANCELLED")), MODEL
    ),
    "TesseraSlotsWithoutOwner": Case(
        _owners(NONE), (_owners(ONE), _owners(NONE, NONE), _owners("1+0x38 0+0x2")), MODEL
    ),
    "TesseraReplicasMissing": Case(_owners(ONE), (_owners("2+0x3000"), _owners("2+0x30 1+0x20")), MODEL),
    "TesseraPlacementsDisagree": Case(
        _epochs("7+0x3000", "8+0x3000"), (_epochs("7+0x3000", "7+0x3000"), _epochs("7+0x35 8+0x20", "8+0x3000")), MODEL
    ),
    "TesseraStoreLost": Case(_stored(NONE), (_stored(NONE, shard_connected=ONE),)),
    "TesseraPlacementOld": Case(_stored(NONE, "0+60x3000", ONE), (_stored(ONE, "30+0x3000", ONE),), ON_ROUTER),
    "TesseraLeasesIgnored": Case(
        _one("tessera_lease_panic", ROUTER + ',model_name="m"', ONE),
        (_one("tessera_lease_panic", ROUTER + ',model_name="m"', NONE),),
        MODEL,
    ),
    "TesseraRecordsDamaged": Case(
        _one("tessera_store_problems", SHARD, "2+0x3000"),
        (_one("tessera_store_problems", SHARD, NONE),),
        {"job": "tessera-shard"},
    ),
    "TesseraOperationStuck": Case(
        _operation("PREPARING"),
        (_operation("PREPARING", "0+1000000x3000"), _operation("STOPPED")),
        {**MODEL, "kind": "reshard", "state": "PREPARING"},
    ),
    "TesseraOperationForgotten": Case(
        _operation("STOPPED"), (_operation("PREPARING"),), {**MODEL, "kind": "reshard"}, "25h"
    ),
    "TesseraNoRouter": Case(
        _one("tessera_ready", ROUTER, NONE) | _one("up", ROUTER, ONE),
        (
            _one("tessera_ready", ROUTER, NONE) | _one("tessera_ready", ROUTER.replace('"r"', '"q"'), ONE)
            | _one("up", ROUTER, ONE),
        ),
    ),
    "TesseraNotReady": Case(
        _one("tessera_ready", SHARD, NONE),
        (_one("tessera_ready", SHARD, "0+0x20 1+0x30"),),
        ON_SHARD,
    ),
    "TesseraNotScraped": Case(_one("up", SHARD, NONE), (_one("up", SHARD, ONE),), ON_SHARD),
    "TesseraRestarts": Case(
        _one("process_start_time_seconds", ROUTER, "100+600x3000"),
        (_one("process_start_time_seconds", ROUTER, "100+0x20 1000+0x40"),),
        ON_ROUTER,
    ),
    "TesseraCannotHold": Case(
        _one("tessera_hold_failures_total", SHARD, "0+1x3000"),
        (_one("tessera_hold_failures_total", SHARD, "0+1x5 5+0x40"),),
        ON_SHARD,
    ),
    "TesseraBlobSourcesFail": Case(
        _one("tessera_staging_source_problems_total", SHARD, "0+1x3000"),
        (_one("tessera_staging_source_problems_total", SHARD, "0+1x5 5+0x40"),),
        ON_SHARD,
    ),
    "TesseraBlobDamaged": Case(
        _one("tessera_scrub_damaged_blobs_total", SHARD, "0+0x30 1+0x20"),
        (_one("tessera_scrub_damaged_blobs_total", SHARD, "3+0x3000"),),
        ON_SHARD,
    ),
    "TesseraLoadFails": Case(
        _one("tessera_model_loads_total", _LOADS + '"NOT_FOUND"', "_x35 1+0x20"),
        (
            _one("tessera_model_loads_total", _LOADS + '"OK"', "0+1x3000"),
            _one("tessera_model_loads_total", _LOADS + '"NOT_FOUND"', ONE),
        ),
        {**ON_ROUTER, **MODEL, "status": "NOT_FOUND"},
    ),
    "TesseraCertificateEnds": Case(_certificate(0, DAY_S), (_certificate(0, 2 * DAY_S),), ON_ROUTER, "21h"),
    "TesseraCertificateEndsSoon": Case(
        _certificate(0, DAY_S), (_certificate(0, DAY_S + 3 * 3600),), ON_ROUTER, "23h30m"
    ),
    "TesseraRequestsRefused": Case(
        _requests(900, 100, "RESOURCE_EXHAUSTED"),
        (_requests(900, 1, "RESOURCE_EXHAUSTED"), _requests(900, 100)),
        MODEL,
    ),
    "TesseraQueueFull": Case(
        _batches('rejected_total{bound="max_enqueued_rows"', 5),
        (_batches('rejected_total{bound="max_batch_size"', 5),),
        _REGION,
    ),
    "TesseraQueueTooSlow": Case(
        _batches('expired_total{when="queued"', 50), (_batches('expired_total{when="queued"', 5),), _REGION
    ),
    "TesseraShardServerRefuses": Case(
        _one("tessera_server_calls_refused_total", SHARD, "0+9x3000"),
        (_one("tessera_server_calls_refused_total", SHARD, "9+0x3000"),),
        ON_SHARD,
    ),
    "TesseraShardServerAvoided": Case(
        _one("tessera_fanout_server_suspect", ROUTER + ',server="s0"', NONE)
        | _one("tessera_fanout_server_ejected", ROUTER + ',server="s0"', ONE),
        (
            _one("tessera_fanout_server_suspect", ROUTER + ',server="s0"', NONE)
            | _one("tessera_fanout_server_ejected", ROUTER + ',server="s0"', NONE)
            | _one("tessera_fanout_server_failures_total", ROUTER + ',server="s0"', "0+1x3000")
            | _one("tessera_fanout_server_rpcs_total", ROUTER + ',server="s0"', "0+1000x3000"),
        ),
        {"server": "s0"},
    ),
    "TesseraShardServerFull": Case(
        _one("tessera_held_bytes", SHARD, "96+0x3000") | _one("tessera_capacity_bytes", SHARD, "100+0x3000"),
        (_one("tessera_held_bytes", SHARD, "94+0x3000") | _one("tessera_capacity_bytes", SHARD, "100+0x3000"),),
        ON_SHARD,
    ),
    "TesseraMemoryShort": Case(
        _memory("96+0x3000", "100+0x3000"),
        (_memory("96+0x3000", NONE), _memory("94+0x3000", "100+0x3000")),
        ON_SHARD,
    ),
    "TesseraFilesShort": Case(
        _one("process_open_fds", ROUTER, "90+0x3000") | _one("process_max_fds", ROUTER, "100+0x3000"),
        (_one("process_open_fds", ROUTER, "70+0x3000") | _one("process_max_fds", ROUTER, "100+0x3000"),),
        ON_ROUTER,
    ),
    "TesseraRequestLogLoses": Case(
        _one(":tensorflow:serving:request_log_count", _LOGGED + '"UNAVAILABLE"', "0+1x3000"),
        (_one(":tensorflow:serving:request_log_count", _LOGGED + '"RESOURCE_EXHAUSTED"', "0+1x3000"),),
        {"instance": "r", **MODEL},
    ),
}  # fmt: skip


def _run(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_rules_are_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(rule_file(), "utf-8")
    assert "SUCCESS" in _run("check", "rules", "--lint=all", "--lint-fatal", tmp_path / "rules.yaml")


def test_every_alert_has_cases_that_speak_of_its_metrics() -> None:
    assert CASES.keys() == alerts().keys()
    for name, case in CASES.items():
        given = {series.split("{")[0] for world in (case.fires, *case.quiet) for series in world}
        needed = {
            metric for metric in names(alerts()[name]["expr"]).metrics if not metric.count(":") or metric[0] == ":"
        }
        assert needed <= given, name


def _group(name: str, case: Case, world: Series, labels: Mapping[str, str] | None) -> dict[str, Any]:
    firing = {"__name__": "ALERTS", "alertname": name, "alertstate": "firing", **alerts()[name]["labels"]}
    text = ",".join(f'{key}="{value}"' for key, value in ({**firing, "namespace": "t"} | dict(labels or {})).items())
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in world.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}',
                "eval_time": case.at,
                "exp_samples": [] if labels is None else [{"labels": f"{{{text}}}", "value": 1}],
            }
        ],
    }


def test_alerts_fire_when_they_should_and_not_else(tmp_path: Path) -> None:
    groups = []
    for name, case in CASES.items():
        groups.append(_group(name, case, case.fires, case.labels))
        groups += [_group(name, case, world, None) for world in case.quiet]
    (tmp_path / "rules.yaml").write_text(rule_file(), "utf-8")
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": groups}
    (tmp_path / "tests.yaml").write_text(json.dumps(tests, indent=1), "utf-8")
    _run("test", "rules", tmp_path / "tests.yaml")
