"""What is done with the traffic of models besides answering it: divided, copied to another version, logged.

Plain models and those of the cluster are the same here: what is done is said by their configuration.

Keeps the native objects of each model for as long as its configuration says the same, so that their counters go on; a
new configuration takes effect with the publication that follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cpp_ext import _graph
from placement.records import TrafficRecord
from router.lifecycle.config import CLUSTER, ModelConfig, RequestLogging, ServerConfig, Shadow, TrafficSplit
from router.request_log import RequestLogWriter
from router.statistics import TrafficStatistics


@dataclass(frozen=True)
class _Log:
    """A request log and who writes it."""

    queue: _graph.RequestLog
    writer: RequestLogWriter


@dataclass(frozen=True)
class _Model:
    """What one model has, and what it was made from."""

    split_config: TrafficSplit | None = None
    shadow_config: Shadow | None = None
    logging_config: RequestLogging | None = None
    split: _graph.TrafficSplit | None = None
    shadow: _graph.Shadow | None = None
    log: _Log | None = None


class Traffic:
    """The traffic of all models; on one thread, but for `statistics`, which any may call."""

    def __init__(self, predictor: _graph.Predictor) -> None:
        """`predictor` answers the copies; it is not kept alive by them."""
        self._predictor = predictor
        self._models: Mapping[str, _Model] = {}

    def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Make what `configs` say, for the next publication; what they no longer say ends, logs once they are written.

        Raises:
            InvalidArgumentError: a value that the native core refuses; names it. Nothing was changed.
        """
        before = self._models
        models: dict[str, _Model] = {}
        try:
            for config in configs:
                models[config.name] = self._make(config, before.get(config.name, _Model()))
        except BaseException:
            _end(models, before, wait_s=0.0)
            raise
        self._models = models
        _end(before, models, wait_s=0.0)

    def _make(self, config: ModelConfig, old: _Model) -> _Model:
        split, shadow, log = old.split, old.shadow, old.log
        if config.split != old.split_config:
            split = _split(config.split) if config.split is not None else None
        if config.shadow != old.shadow_config:
            shadow = self._shadow(config.name, config.shadow) if config.shadow is not None else None
        if config.logging != old.logging_config:  # last: it starts a thread, and nothing may fail afterwards
            log = _start_log(config.name, config.logging) if config.logging is not None else None
        return _Model(config.split, config.shadow, config.logging, split, shadow, log)

    def _shadow(self, model: str, config: Shadow) -> _graph.Shadow:
        return _graph.Shadow(
            self._predictor, model=model, version=config.version, percent=config.percent, tolerance=config.tolerance
        )

    def splits(self) -> dict[str, _graph.TrafficSplit]:
        """Return the `traffic` of a publication."""
        return {name: model.split for name, model in self._models.items() if model.split is not None}

    def hooks(self, model: str) -> tuple[_graph.AnswerHook, ...]:
        """Return the hooks of every version of `model`."""
        found = self._models.get(model, _Model())
        hooks = (found.log.queue if found.log is not None else None, found.shadow)
        return tuple(hook for hook in hooks if hook is not None)

    def statistics(self) -> TrafficStatistics:
        """Return the counters of this moment."""
        models = self._models
        return TrafficStatistics(
            shadows={name: model.shadow.counts() for name, model in models.items() if model.shadow is not None},
            logs={name: model.log.writer.statistics() for name, model in models.items() if model.log is not None},
        )

    def stop(self) -> None:
        """End all logs: what they have is written. Blocks for some seconds at most."""
        models, self._models = self._models, {}
        _end(models, {}, wait_s=10.0)


def all_labels(config: ServerConfig, placed: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return model → label → version, whether that is there or not.

    `placed` are the labels of the cluster's models as the cluster says; the configuration's go before them.
    """
    labels = {name: dict(of) for name, of in placed.items()}
    labels |= {model.name: dict(model.labels) for model in config.plain}
    for model in config.clustered:
        labels[model.name] = labels.get(model.name, {}) | dict(model.labels)
    return labels


def clustered_configs(config: ServerConfig, records: Mapping[str, TrafficRecord]) -> list[ModelConfig]:
    """Return what is done with the traffic of the cluster's models; a split in `config` goes before the record's."""
    configs = {model.name: model for model in config.clustered}
    plain = {model.name for model in config.plain}
    for name, record in records.items():
        one = configs.get(name, ModelConfig(name, Path(), CLUSTER))
        if record.shares and one.split is None and name not in plain:
            configs[name] = replace(one, split=TrafficSplit(record.percent(), record.sticky_header))
    return list(configs.values())


def _split(config: TrafficSplit) -> _graph.TrafficSplit:
    return _graph.TrafficSplit(config.percent, sticky_header=config.sticky_header.lower())


def _start_log(model: str, config: RequestLogging) -> _Log:
    queue = _graph.RequestLog(model=model, sampling_rate=config.sampling_rate)
    log = _Log(queue, RequestLogWriter(model, queue, config))
    log.writer.start()
    return log


def _end(models: Mapping[str, _Model], kept: Mapping[str, _Model], *, wait_s: float) -> None:
    """Stop the logs of `models` that are not among those of `kept`."""
    for name, model in models.items():
        if model.log is not None and model.log is not kept.get(name, _Model()).log:
            model.log.writer.stop(wait_s)
