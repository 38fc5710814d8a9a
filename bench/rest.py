"""REST predict of the tiny model against what people write by hand."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable

import numpy as np

from bench import models, servers
from bench.context import Context, say
from bench.load import Target, interleaved, median
from bench.report import CONCURRENCIES, Row
from tessera.errors import InternalError

_MODEL = "half_plus_two"
_PATH = f"/v1/models/{_MODEL}:predict"
_GOAL = 2.0
_TIMEOUT_S = 30.0


def rest(context: Context) -> list[Row]:
    """REST predict of a model that does next to nothing, against FastAPI with TensorFlow, on the same core."""
    inputs = models.tiny_inputs()["x"]
    body = json.dumps({"instances": inputs.tolist()}).encode()
    durations = context.durations
    with servers.running(context.log_dir) as started:
        places = {
            "tessera": started.rest(_MODEL, context.tiny),
            "fastapi": started.fastapi(_MODEL, context.tiny),
        }
        targets = {kind: _target(place, body, inputs * 0.5 + 2.0) for kind, place in places.items()}
        points = {}
        for concurrency in (CONCURRENCIES[-1], 1):
            say(f"{', '.join(targets)} at concurrency {concurrency}")
            points[concurrency] = interleaved(
                targets,
                concurrency,
                rounds=durations.rounds,
                duration_s=durations.run_s,
                warm_up_s=durations.warm_up_s,
            )
        for place in places.values():
            _target(place, body, inputs * 0.5 + 2.0)  # still right after the load
    full, single = (
        {kind: median(found) for kind, found in points[concurrency].items()} for concurrency in (CONCURRENCIES[-1], 1)
    )
    return [
        Row(
            name="rest_tiny_vs_fastapi",
            value=full["tessera"].requests_per_core_s,
            unit="requests per CPU second",
            baseline="FastAPI, uvicorn and TensorFlow",
            baseline_value=full["fastapi"].requests_per_core_s,
            goal=_GOAL,
            detail={
                f"{kind}_{field}": round(getattr(point, field), 2)
                for kind, point in full.items()
                for field in ("requests_per_s", "p50_us", "p99_us", "cpu_us", "load_cpu")
            },
        ),
        Row(
            name="rest_tiny_p50_us",
            value=single["tessera"].p50_us,
            unit="µs at concurrency 1",
            baseline="FastAPI, uvicorn and TensorFlow",
            baseline_value=single["fastapi"].p50_us,
            higher_is_better=False,
            detail={f"{kind}_p99_us": point.p99_us for kind, point in single.items()},
        ),
    ]


CASES: dict[str, Callable[[Context], list[Row]]] = {"rest": rest}


def _target(place: servers.Started, body: bytes, expected: np.ndarray) -> Target:
    """Return what load can be sent to, after answers that are right; models warm up by them."""
    host, _, port = place.address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
    for _ in range(20):
        connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        got = json.loads(answer).get("predictions")
        if got is None or not np.allclose(got, expected):
            raise InternalError(f"{_PATH} at {place.address}: got {answer!r}, expected {expected!r}")
    connection.close()
    return Target(place.address, _PATH, body, len(answer), place.pids, http1=True)
