"""The parts of a manifest: tables, weights, signatures and files. Constructors check what they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tessera.errors import InvalidArgumentError
from tessera.manifest_checks import (
    ITEM_BYTES,
    check_digest,
    check_dtype,
    check_integer,
    check_relative_path,
    check_shape,
    check_text,
)


@dataclass(frozen=True, slots=True)
class Table:
    """A variable that is split by rows: row `r` is local row `r // buckets` of bucket `r % buckets`.

    Attributes:
        name: the variable's name in the SavedModel; unique in the manifest.
        rows: how many rows, ≥ 1.
        row_shape: shape of one row; () for a variable of rank 1.
        dtype: numpy-style name, for example float32 or bfloat16.
        row_bytes: bytes of one row, ≥ 1.
        buckets: how many buckets; odd and ≤ rows.
        blobs: SHA-256 (hex) of each bucket's blob, in the order of buckets.

    Raises:
        InvalidArgumentError: a field has a wrong value; names it.
    """

    name: str
    rows: int
    row_shape: tuple[int, ...]
    dtype: str
    row_bytes: int
    buckets: int
    blobs: tuple[str, ...]

    def __post_init__(self) -> None:
        what = f"table {self.name!r}"
        check_text(self.name, f"{what}: name")
        check_integer(self.rows, f"{what}: rows", low=1)
        check_shape(self.row_shape, f"{what}: row_shape")
        check_dtype(self.dtype, f"{what}: dtype", sized=True)
        row_bytes = math.prod(self.row_shape) * ITEM_BYTES[self.dtype]
        if self.row_bytes != row_bytes or row_bytes == 0:
            raise InvalidArgumentError(f"{what}: row_bytes: got {self.row_bytes}, expected {row_bytes} and not 0")
        check_integer(self.buckets, f"{what}: buckets", low=1, high=self.rows)
        if self.buckets % 2 == 0:
            raise InvalidArgumentError(f"{what}: buckets: got {self.buckets}, expected an odd number")
        if len(self.blobs) != self.buckets:
            raise InvalidArgumentError(
                f"{what}: blobs: got {len(self.blobs)} digests, expected one for each of {self.buckets} buckets"
            )
        for bucket, digest in enumerate(self.blobs):
            check_digest(digest, f"{what}: blobs[{bucket}]")

    def bucket_rows(self, bucket: int) -> int:
        """Return how many rows bucket `bucket` holds, ≥ 1.

        Raises:
            InvalidArgumentError: there is no such bucket.
        """
        check_integer(bucket, f"table {self.name!r}: bucket", low=0, high=self.buckets - 1)
        return (self.rows - bucket + self.buckets - 1) // self.buckets

    def bucket_bytes(self, bucket: int) -> int:
        """Return the size of bucket `bucket`'s blob.

        Raises:
            InvalidArgumentError: there is no such bucket.
        """
        return self.bucket_rows(bucket) * self.row_bytes

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of the root graph: the blob behind one `TesseraBlob` op.

    Raises:
        InvalidArgumentError: a field has a wrong value; names it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    bytes: int

    def __post_init__(self) -> None:
        what = f"weight {self.name!r}"
        check_text(self.name, f"{what}: name")
        check_dtype(self.dtype, f"{what}: dtype", sized=True)
        check_shape(self.shape, f"{what}: shape")
        check_digest(self.digest, f"{what}: digest")
        size_bytes = math.prod(self.shape) * ITEM_BYTES[self.dtype]
        if self.bytes != size_bytes or size_bytes == 0:
            raise InvalidArgumentError(f"{what}: bytes: got {self.bytes}, expected {size_bytes} and not 0")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: the tensor in the root graph, for example `serving_default_x:0`.
        dtype: numpy-style name, or `string`.
        shape: -1 stands for a dimension of any size; None for any rank.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None

    def __post_init__(self) -> None:
        what = f"tensor {self.name!r}"
        check_text(self.name, f"{what}: name")
        check_dtype(self.dtype, f"{what}: dtype", sized=False)
        if self.shape is not None:
            check_shape(self.shape, f"{what}: shape", low=-1)


@dataclass(frozen=True, slots=True)
class Signature:
    """A function that clients can call; inputs and outputs by the names that clients use."""

    method_name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def __post_init__(self) -> None:
        check_text(self.method_name, "signature: method_name", may_be_empty=True)
        for group in ("inputs", "outputs"):
            object.__setattr__(self, group, MappingProxyType(dict(getattr(self, group))))


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of the package directory: the root graph or an asset.

    Raises:
        InvalidArgumentError: the path leaves the package directory, or another field has a wrong value.
    """

    path: str
    digest: str
    bytes: int

    def __post_init__(self) -> None:
        check_relative_path(self.path, "file: path")
        check_digest(self.digest, f"file {self.path!r}: digest")
        check_integer(self.bytes, f"file {self.path!r}: bytes", low=0)
