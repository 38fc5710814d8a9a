"""Families of metrics in Prometheus' form, and their text; the one module here that needs the library for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from tessera.certificates import Validity

SERVING = ":tensorflow:serving:"
"""How TensorFlow Serving writes `/tensorflow/serving/` to Prometheus."""


class MetricsText:
    """The text of all metrics: those of `collect` and the usual `process_…`; from any thread."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """`collect` is asked at every call."""
        self._collect = collect
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    def __call__(self) -> bytes:
        """Return what a scrape gets. Cost: some milliseconds."""
        return render([*self._process.collect(), *self._collect()])


def render(families: Iterable[Metric]) -> bytes:
    """Return the text of `families`. Unlike the library's, it leaves the names of counters as they are."""
    lines: list[str] = []
    for family in families:
        # The library's own counters have samples with `_total`, also those that have none yet.
        name = f"{family.name}_total" if isinstance(family, CounterMetricFamily) else family.name
        lines.append(f"# HELP {name} {_escape(family.documentation)}")
        lines.append(f"# TYPE {name} {family.type}")
        for sample in family.samples:
            labels = ",".join(f'{key}="{_escape(value, quotes=True)}"' for key, value in sorted(sample.labels.items()))
            lines.append(f"{sample.name}{f'{{{labels}}}' if labels else ''} {_number(sample.value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def build_info(build: str) -> Metric:
    """Return the version of the software, as a label."""
    return gauge("build_info", "Always 1; the label is the version.", ("build",), [((build,), 1)])


def process_families(is_ready: bool, memory_limit_bytes: int, certificate: Validity | None) -> list[Metric]:
    """Return what every process tells of itself: readiness, memory, and the certificate that it shows, if it does."""
    held = [] if certificate is None else [certificate]
    text = "Bytes of memory that the process may use: the least of its limits, its container's and the machine's."
    return [
        gauge("ready", "1 while the process is ready, as /readyz says.", (), [((), int(is_ready))]),
        gauge("memory_limit_bytes", text, (), [((), memory_limit_bytes)]),
        gauge(
            "certificate_start_timestamp_seconds",
            "Since when the certificate holds that is shown to those who connect.",
            (),
            [((), one.start_s) for one in held],
        ),
        gauge(
            "certificate_expiration_timestamp_seconds",
            "Until when the certificate holds that is shown to those who connect.",
            (),
            [((), one.end_s) for one in held],
        ),
    ]


def serving_counter(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[Sequence[str], float]],
    *,
    prefix: str = SERVING,
) -> Metric:
    """Return a counter under TensorFlow Serving's name, which has no `_total` behind it."""
    family = Metric(prefix + name, text, "counter")
    for key, value in values:
        family.add_sample(family.name, dict(zip(labels, key, strict=True)), value)
    return family


def histogram(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[Sequence[str], Sequence[tuple[str, int]], float]],
) -> HistogramMetricFamily:
    """Return a histogram; `values` has (labels, buckets, sum) and `name` is whole."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, buckets, total in values:
        family.add_metric(key, buckets, sum_value=total)
    return family


def bounded_buckets(counts: Sequence[int], bounds: Sequence[float]) -> list[tuple[str, int]]:
    """Return cumulative buckets (upper bound, count) of cells with these upper bounds and one above them all."""
    return list(zip([*(f"{bound:.10g}" for bound in bounds), "+Inf"], accumulate(counts), strict=True))


def power_buckets(counts: Sequence[int], unit: float) -> list[tuple[str, int]]:
    """Return cumulative buckets (upper bound in `unit`s, count) of a native power histogram; the last is +Inf."""
    # Cell i holds the times below 2^i that were cut to whole microseconds: 2^i bounds the times themselves.
    bounds = [f"{(1 << i) * unit:.10g}" for i in range(len(counts) - 1)]
    return list(zip([*bounds, "+Inf"], accumulate(counts), strict=True))


def counter(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> CounterMetricFamily:
    """Return one of ours, `tessera_{name}_total`."""
    family = CounterMetricFamily(f"tessera_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family


def gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    """Return one of ours, `tessera_{name}`."""
    family = GaugeMetricFamily(f"tessera_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
