"""The manifest: what one package consists of, named by content.

A manifest is a small immutable JSON document (`docs/formats/package.md`). Everything that it lists is named by the
SHA-256 of its bytes, and the manifest carries the SHA-256 of its own canonical form, so that a damaged or edited
document is refused when it is read. Constructors check what they are given, so a `Manifest` that exists is valid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tessera.errors import DataLossError, InvalidArgumentError
from tessera.manifest_checks import Fields, check_model, check_text, check_unique, check_version
from tessera.manifest_parts import FileRef, Signature, Table, TensorSpec, Weight

__all__ = ["FORMAT_VERSION", "MAX_MANIFEST_BYTES", "FileRef", "Manifest", "Signature", "Table", "TensorSpec", "Weight"]

FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Manifest:
    """One version of one model.

    Attributes:
        format_version: of this document; readers refuse every other.
        model: name of the model, `[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}`.
        version: int64 ≥ 0.
        tables: what is split; TesseraLookup ops refer to positions in it.
        weights: what the root graph keeps.
        signatures: by name.
        files: root graph and assets.
        source: where the package came from (text → text): fingerprints, never paths.
        tools: what made it (text → text): versions.

    Raises:
        InvalidArgumentError: a field has a wrong value; names it.
    """

    model: str
    version: int
    tables: tuple[Table, ...]
    weights: tuple[Weight, ...]
    signatures: Mapping[str, Signature]
    files: tuple[FileRef, ...]
    source: Mapping[str, str] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION or isinstance(self.format_version, bool):
            raise InvalidArgumentError(f"format_version: got {self.format_version!r}, expected {FORMAT_VERSION}")
        check_model(self.model)
        check_version(self.version)
        check_unique((table.name for table in self.tables), "tables: name")
        check_unique((weight.name for weight in self.weights), "weights: name")
        check_unique((file.path for file in self.files), "files: path")
        for name in ("signatures", "source", "tools"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for group in (self.source, self.tools):
            for key, value in group.items():
                check_text(key, "source or tools: key")
                check_text(value, f"source or tools: {key}", may_be_empty=True)
        self.blob_sizes()  # refuses one digest with two sizes

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of everything but the digest itself. Costs one serialization."""
        return hashlib.sha256(_canonical(self._to_json())).hexdigest()

    def blob_sizes(self) -> dict[str, int]:
        """Return digest → bytes of every blob that the package needs, each once.

        Raises:
            InvalidArgumentError: one digest is listed with two sizes.
        """
        sizes: dict[str, int] = {}
        for digest, size_bytes in self._blobs():
            if sizes.setdefault(digest, size_bytes) != size_bytes:
                raise InvalidArgumentError(f"blob {digest}: listed with {sizes[digest]} and with {size_bytes} bytes")
        return sizes

    def _blobs(self) -> Iterable[tuple[str, int]]:
        for table in self.tables:
            for bucket, digest in enumerate(table.blobs):
                yield digest, table.bucket_bytes(bucket)
        for weight in self.weights:
            yield weight.digest, weight.bytes

    def to_bytes(self) -> bytes:
        """Return the document: canonical JSON (sorted keys, no spaces, ASCII) with `digest`, and a newline."""
        body = self._to_json()
        return _canonical(body | {"digest": hashlib.sha256(_canonical(body)).hexdigest()}) + b"\n"

    def _to_json(self) -> dict[str, Any]:
        def tensors(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
            return {key: {"name": s.name, "dtype": s.dtype, "shape": s.shape} for key, s in specs.items()}

        return {
            "format_version": self.format_version,
            "model": self.model,
            "version": self.version,
            "tables": [{name: getattr(table, name) for name in Table.__slots__} for table in self.tables],
            "weights": [{name: getattr(weight, name) for name in Weight.__slots__} for weight in self.weights],
            "signatures": {
                name: {"method_name": s.method_name, "inputs": tensors(s.inputs), "outputs": tensors(s.outputs)}
                for name, s in self.signatures.items()
            },
            "files": [{name: getattr(file, name) for name in FileRef.__slots__} for file in self.files],
            "source": dict(self.source),
            "tools": dict(self.tools),
        }

    @staticmethod
    def from_bytes(data: bytes) -> Manifest:
        """Read what `to_bytes` wrote.

        Raises:
            DataLossError: not JSON, or the content does not have the digest that it states.
            InvalidArgumentError: another format version, a field is missing, unknown, or has a wrong value; names it.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidArgumentError(f"manifest: got {len(data)} bytes, expected at most {MAX_MANIFEST_BYTES}")
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataLossError(f"manifest: not JSON: {error}") from error
        fields = Fields(raw, "manifest")
        stated = fields.take("digest", str)
        version = fields.peek("format_version")
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise InvalidArgumentError(f"manifest: format_version: got {version!r}, expected {FORMAT_VERSION}")
        found = hashlib.sha256(_canonical({key: value for key, value in raw.items() if key != "digest"})).hexdigest()
        if stated != found:
            raise DataLossError(f"manifest: digest: states {stated}, but its content has {found}")
        return _read(fields)


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _read(fields: Fields) -> Manifest:
    manifest = Manifest(
        format_version=fields.take("format_version", int),
        model=fields.take("model", str),
        version=fields.take("version", int),
        tables=tuple(
            Table(
                name=f.take("name", str),
                rows=f.take("rows", int),
                row_shape=f.take_tuple("row_shape", int),
                dtype=f.take("dtype", str),
                row_bytes=f.take("row_bytes", int),
                buckets=f.take("buckets", int),
                blobs=f.take_tuple("blobs", str),
            )
            for f in fields.take_objects("tables")
        ),
        weights=tuple(
            Weight(
                name=f.take("name", str),
                dtype=f.take("dtype", str),
                shape=f.take_tuple("shape", int),
                digest=f.take("digest", str),
                bytes=f.take("bytes", int),
            )
            for f in fields.take_objects("weights")
        ),
        signatures={
            name: Signature(
                method_name=f.take("method_name", str),
                inputs=_read_tensors(f, "inputs"),
                outputs=_read_tensors(f, "outputs"),
            )
            for name, f in fields.take_object_map("signatures")
        },
        files=tuple(
            FileRef(path=f.take("path", str), digest=f.take("digest", str), bytes=f.take("bytes", int))
            for f in fields.take_objects("files")
        ),
        source=fields.take_texts("source"),
        tools=fields.take_texts("tools"),
    )
    fields.end()
    return manifest


def _read_tensors(fields: Fields, group: str) -> dict[str, TensorSpec]:
    return {
        key: TensorSpec(
            name=f.take("name", str),
            dtype=f.take("dtype", str),
            shape=f.take_tuple_or_null("shape", int),
        )
        for key, f in fields.take_object_map(group)
    }
