"""Checks a package against the SavedModel it was made from: the bytes of every file, and the answers.

The SavedModel runs in plain TensorFlow, the package in the native core with an in-process table store: the same
executor, ops and fan-out that serve, without sockets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import errors as tf_errors

from cpp_ext import _graph, _rpc
from partition.samples import Inputs, sample_inputs
from tessera.errors import FailedPreconditionError, NotFoundError, TesseraError
from tessera.manifest import Manifest
from tessera.repository import Repository

Outputs = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class OutputReport:
    """How one output of one signature compares over all samples.

    Attributes:
        bit_equal: whether every value has the same bits, dtype and shape.
        max_abs_difference: largest |package - SavedModel|; infinite when dtype, shape or text differ.
    """

    signature: str
    output: str
    bit_equal: bool
    max_abs_difference: float


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_package` found.

    Attributes:
        outputs: one entry for each output of each signature.
        samples: how many inputs both answered, by signature.
        refused: how many inputs both refused, by signature.
        blobs: how many blobs were read through.
        bytes: of these blobs.
    """

    outputs: tuple[OutputReport, ...]
    samples: Mapping[str, int]
    refused: Mapping[str, int]
    blobs: int
    bytes: int

    @property
    def bit_equal(self) -> bool:
        """Whether every output of every signature was bit for bit the same."""
        return all(output.bit_equal for output in self.outputs)

    @property
    def max_abs_difference(self) -> float:
        """Largest difference of all outputs."""
        return max((output.max_abs_difference for output in self.outputs), default=0.0)


class SavedModelRunner:
    """Runs a SavedModel's signatures in plain TensorFlow. Close it, or use it as a context manager."""

    def __init__(self, directory: Path) -> None:
        """Load the `serve` graph of `directory` with its weights."""
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            self._meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(directory))

    def run(self, signature: str, inputs: Inputs) -> dict[str, np.ndarray[Any, Any]]:
        """Return the outputs; raises TensorFlow's errors."""
        definition = self._meta.signature_def[signature]
        fetches = {key: info.name for key, info in definition.outputs.items()}
        feeds = {definition.inputs[key].name: value for key, value in inputs.items()}
        answers = self._session.run(fetches, feeds)
        return {key: np.asarray(value) for key, value in answers.items()}

    def __enter__(self) -> SavedModelRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()


class PackageRunner:
    """Runs a package in the native core of this process."""

    def __init__(self, repository: Repository, manifest: Manifest) -> None:
        """Map every blob and load the graph."""
        store = _rpc.TableStore()
        held = []
        for table in manifest.tables:
            blobs = {
                bucket: _rpc.Blob.map(str(repository.blob_path(digest)), table.bucket_bytes(bucket))
                for bucket, digest in enumerate(table.blobs)
            }
            held.append(
                _rpc.HeldTable(
                    name=table.name, rows=table.rows, row_bytes=table.row_bytes, buckets=table.buckets, blobs=blobs
                )
            )
        digest = bytes.fromhex(manifest.digest)
        store.publish(package_digest=digest, model=manifest.model, version=manifest.version, tables=held)
        self._fanout = _rpc.Fanout()
        _graph.configure(fanout=self._fanout.capsule())
        self._route = self._fanout.route(
            model=manifest.model,
            version=manifest.version,
            epoch=1,
            package_digest=digest,
            targets=[_rpc.Target(server_id="verify", store=store)],
            slots=[[0]],
            tables=[
                _rpc.RoutedTable(name=table.name, rows=table.rows, row_bytes=table.row_bytes, buckets=table.buckets)
                for table in manifest.tables
            ],
        )
        self._graph = _graph.Graph.load(
            str(repository.package_dir(manifest.model, manifest.version)),
            blobs={weight.digest: str(repository.blob_path(weight.digest)) for weight in manifest.weights},
        )

    def run(self, signature: str, inputs: Inputs) -> dict[str, np.ndarray[Any, Any]]:
        """Return the outputs.

        Raises:
            TesseraError: as the request would.
        """
        return self._graph.run(signature, inputs, route=self._route.capsule())

    def __enter__(self) -> PackageRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self._fanout.stop()


def verify_package(
    saved_model_dir: str | os.PathLike[str],
    repository: Repository,
    model: str,
    version: int,
    *,
    inputs: Mapping[str, Sequence[Inputs]] | None = None,
    samples: int = 8,
    seed: int = 0,
) -> VerifyReport:
    """Read every file of a package through, run it beside the SavedModel, and compare the answers.

    Differences are reported, not raised. To compare bit for bit, the process must have been started with
    `TF_ENABLE_ONEDNN_OPTS=0`, because that is how packages are served.

    Args:
        saved_model_dir: what the package was made from; never written to.
        repository: that holds the package.
        model: name of the model.
        version: of the model.
        inputs: signature → inputs to try; signatures that are not named are tried on generated inputs.
        samples: how many inputs to generate for each signature, ≥ 1.
        seed: of the generated inputs.

    Raises:
        NotFoundError: no such package, or `inputs` names a signature that it has not.
        DataLossError: a file of the package is missing or damaged; names it.
        FailedPreconditionError: only one of the two refused an input, or both refused all inputs of a signature.
    """
    manifest = repository.read_manifest(model, version)
    for name in inputs or {}:
        if name not in manifest.signatures:
            raise NotFoundError(
                f"inputs: signature {name!r} is not there, expected some of {sorted(manifest.signatures)}"
            )
    repository.verify_files(manifest)
    blobs = manifest.blob_sizes()
    for digest, size_bytes in blobs.items():
        repository.verify_blob(digest, size_bytes)
    directory = repository.package_dir(model, version)
    outputs: list[OutputReport] = []
    answered: dict[str, int] = {}
    refused: dict[str, int] = {}
    with SavedModelRunner(Path(saved_model_dir)) as original, PackageRunner(repository, manifest) as package:
        for name in sorted(manifest.signatures):
            given = (inputs or {}).get(name)
            tried = given if given is not None else sample_inputs(manifest, directory, name, samples=samples, seed=seed)
            pairs = [pair for sample in tried if (pair := _run_both(original, package, name, sample)) is not None]
            answered[name], refused[name] = len(pairs), len(tried) - len(pairs)
            if not pairs:
                raise FailedPreconditionError(
                    f"signature {name!r}: refuses all of {len(tried)} inputs; give inputs that it accepts"
                )
            outputs += [compare(name, output, pairs) for output in sorted(manifest.signatures[name].outputs)]
    return VerifyReport(tuple(outputs), answered, refused, len(blobs), sum(blobs.values()))


def _run_both(
    original: SavedModelRunner, package: PackageRunner, name: str, sample: Inputs
) -> tuple[Outputs, Outputs] | None:
    """Return both answers, or None if both refuse the input with the same code."""
    expected, error = None, None
    try:
        expected = original.run(name, sample)
    except tf_errors.OpError as tf_error:
        error = tf_error
    try:
        found = package.run(name, sample)
    except TesseraError as own_error:
        if error is not None and error.error_code == own_error.code:
            return None
        raise FailedPreconditionError(
            f"signature {name!r}: the package fails ({own_error.code.name}: {own_error.message}), the SavedModel "
            f"{'answers' if error is None else f'fails differently ({error.message})'}"
        ) from own_error
    if expected is None:
        assert error is not None
        raise FailedPreconditionError(f"signature {name!r}: the package answers, the SavedModel fails: {error.message}")
    return expected, found


def compare(signature: str, output: str, pairs: Sequence[tuple[Outputs, Outputs]]) -> OutputReport:
    """Compare one output over pairs of (SavedModel's, package's) answers."""
    bit_equal, largest = True, 0.0
    for expected_all, found_all in pairs:
        expected, found = expected_all[output], found_all[output]
        if expected.dtype != found.dtype or expected.shape != found.shape:
            bit_equal, largest = False, float("inf")
        elif expected.dtype == object:
            if expected.tolist() != found.tolist():
                bit_equal, largest = False, float("inf")
        elif expected.tobytes() != found.tobytes():
            bit_equal = False
            wide = np.complex128 if expected.dtype.kind == "c" else np.float64
            difference = np.abs(expected.astype(wide) - found.astype(wide))
            largest = max(largest, float(np.max(np.where(np.isnan(difference), np.inf, difference), initial=0.0)))
    return OutputReport(signature, output, bit_equal, largest)
