"""Writes the models of `bench.batching_models` once per work folder: one SavedModel per setting, and their samples."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from bench import batching_models
from bench.batching_models import WORKLOADS, Variant, Workload
from tessera.errors import FailedPreconditionError

SAMPLES = 64
_FEW_SAMPLES = 16  # of models that take long to answer
_SLOW = ("slow", "inception")


@dataclass(frozen=True)
class Settings:
    """Of TensorFlow's batch function.

    Attributes:
        timeout_us: How long a request may wait for others; the function waits in whole milliseconds.
        threads: Batches in flight; 0: it adapts them.
        max_batch: Rows of a batch.
    """

    timeout_us: int = 0
    threads: int = 1
    max_batch: int = 64

    @property
    def name(self) -> str:
        """Short, for rows and folders."""
        threads = f"n{self.threads}" if self.threads else "adaptive"
        return f"t{self.timeout_us}_{threads}_m{self.max_batch}"


class ModelFolder:
    """The SavedModels and samples in `folder`, made when first needed.

    The op libraries (Tessera's, and the simulated accelerator's `op_library`) are loaded into TensorFlow.
    """

    def __init__(self, folder: Path, op_library: Path) -> None:
        self._folder = folder / _source_key()
        self._folder.mkdir(parents=True, exist_ok=True)
        tf.load_op_library(str(op_library))

    def saved_model(self, workload: str, variant: Variant, settings: Settings | None = None) -> Path:
        """Return the SavedModel's folder; `settings` for those with TensorFlow's batch function."""
        plain = self._folder / workload / variant
        if not plain.is_dir():
            _save(WORKLOADS[workload].make(variant), plain)
        if settings is None:
            return plain
        folder = plain.with_name(f"{variant}_{settings.name}")
        if not folder.is_dir():
            _copy_with(plain, folder, settings)
        return folder

    def samples(self, workload: str) -> Path:
        """Return the file of requests and what plain TensorFlow answers to each, one by one."""
        path = self._folder / workload / "samples"
        if not path.is_file():
            model = self.saved_model(workload, "none")
            content = _samples(WORKLOADS[workload], model, _FEW_SAMPLES if workload in _SLOW else SAMPLES)
            partial = path.with_name("samples.partial")
            partial.write_bytes(content)
            partial.rename(path)
        return path


def set_batch_functions(saved_model: saved_model_pb2.SavedModel, settings: Settings) -> int:
    """Give every BatchFunction node these settings; return how many there are."""
    values = {
        "num_batch_threads": settings.threads,
        "max_batch_size": settings.max_batch,
        "batch_timeout_micros": settings.timeout_us,
    }
    nodes = [
        node
        for meta_graph in saved_model.meta_graphs
        for nodes in (
            meta_graph.graph_def.node,
            *(function.node_def for function in meta_graph.graph_def.library.function),
        )
        for node in nodes
        if node.op == "BatchFunction"
    ]
    for node in nodes:
        for name, value in values.items():
            node.attr[name].i = value
    return len(nodes)


def encode_samples(samples: Sequence[tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]]) -> bytes:
    """Return the file that bench/cpp/batch/batch_samples.h describes; no answer means that an error is expected."""
    inputs, outputs = sorted(samples[0][0]), sorted(samples[0][1] or {})
    parts = [struct.pack("<3I", len(inputs), len(outputs), len(samples))]

    def add(content: bytes) -> None:
        parts.extend((struct.pack("<I", len(content)), content))

    for alias in (*inputs, *outputs):
        add(alias.encode())
    for given, answer in samples:
        parts.append(struct.pack("<I", answer is None))
        for alias in inputs:
            add(tf.make_tensor_proto(given[alias]).SerializeToString())
        for alias in outputs if answer is not None else ():
            assert answer is not None
            add(tf.make_tensor_proto(answer[alias]).SerializeToString())
    return b"".join(parts)


def _source_key() -> str:
    """Return a name for what decides the models' bytes."""
    content = Path(batching_models.__file__).read_bytes() + Path(__file__).read_bytes() + tf.__version__.encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _save(module: tf.Module, folder: Path) -> None:
    partial = folder.with_name(folder.name + ".partial")
    tf.saved_model.save(module, str(partial), signatures={"serving_default": module.serve})
    partial.rename(folder)


def _copy_with(source: Path, folder: Path, settings: Settings) -> None:
    """Make a SavedModel that differs in the batch function's settings and shares the weights' files."""
    saved_model = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    if not set_batch_functions(saved_model, settings):
        raise FailedPreconditionError(f"{source}: has no BatchFunction, expected one to set")
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(exist_ok=True)
    (partial / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    (partial / "variables").symlink_to(source / "variables")
    partial.rename(folder)


def _samples(workload: Workload, model: Path, count: int) -> bytes:
    loaded = tf.saved_model.load(str(model))
    serve = loaded.signatures["serving_default"]
    samples: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]] = []
    for inputs in workload.inputs(count):
        answer = serve(**{alias: tf.constant(value) for alias, value in inputs.items()})
        samples.append((inputs, {alias: value.numpy() for alias, value in answer.items()}))
    if workload.poisoned is not None:
        samples.append((workload.poisoned(), None))
    return encode_samples(samples)
