from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tessera.errors import DataLossError, InvalidArgumentError, NotFoundError, PermissionDeniedError
from tessera.manifest import FileRef, Manifest
from tessera.repository import Repository


def put_package(root: Path, model: str, version: int, root_graph: bytes = b"graph") -> Manifest:
    digest = hashlib.sha256(root_graph).hexdigest()
    files = (FileRef("saved_model.pb", digest, len(root_graph)),)
    manifest = Manifest(model=model, version=version, tables=(), weights=(), signatures={}, files=files)
    directory = root / "packages" / model / str(version)
    directory.mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(root_graph)
    (directory / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest


def put_blob(root: Path, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def test_a_repository_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "none")
    assert repository.models() == []
    assert repository.versions("m") == []
    with pytest.raises(NotFoundError, match="model 'm' version 1"):
        repository.read_manifest("m", 1)


def test_only_complete_packages_are_listed(tmp_path: Path) -> None:
    put_package(tmp_path, "m", 10)
    put_package(tmp_path, "m", 9)
    put_package(tmp_path, "other", 0)
    packages = tmp_path / "packages"
    for name in (".11.writing", "12", "x", "007", "-1", "99999999999999999999", "1_0"):
        (packages / "m" / name).mkdir()
    (packages / ".hidden" / "1").mkdir(parents=True)
    (packages / "empty").mkdir()
    repository = Repository(tmp_path)
    assert repository.models() == ["m", "other"]
    assert repository.versions("m") == [9, 10]


def test_a_manifest_of_another_package_is_refused(tmp_path: Path) -> None:
    put_package(tmp_path, "m", 1)
    (tmp_path / "packages" / "m" / "1").rename(tmp_path / "packages" / "m" / "2")
    with pytest.raises(DataLossError, match="version 1, expected 'm' 2"):
        Repository(tmp_path).read_manifest("m", 2)


def test_a_damaged_manifest_is_refused_with_its_name(tmp_path: Path) -> None:
    put_package(tmp_path, "m", 1)
    path = tmp_path / "packages" / "m" / "1" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"bytes":5', b'"bytes":6'))
    with pytest.raises(DataLossError, match=str(path)):
        Repository(tmp_path).read_manifest("m", 1)


def test_files_of_a_package_are_verified(tmp_path: Path) -> None:
    manifest = put_package(tmp_path, "m", 1)
    repository = Repository(tmp_path)
    repository.verify_files(manifest)
    (tmp_path / "packages/m/1/saved_model.pb").write_bytes(b"grapH")
    with pytest.raises(DataLossError, match=r"saved_model\.pb: has SHA-256"):
        repository.verify_files(manifest)
    (tmp_path / "packages/m/1/saved_model.pb").unlink()
    with pytest.raises(NotFoundError, match=r"saved_model\.pb"):
        repository.verify_files(manifest)


def test_blobs_are_verified_by_size_and_content(tmp_path: Path) -> None:
    digest = put_blob(tmp_path, b"0123456789")
    repository = Repository(tmp_path)
    path = repository.verify_blob(digest, 10)
    assert path.read_bytes() == b"0123456789"
    with pytest.raises(DataLossError, match=r"has 10 bytes, expected 11"):
        repository.verify_blob(digest, 11)
    path.write_bytes(b"0123456780")
    with pytest.raises(DataLossError, match=f"expected {digest}"):
        repository.verify_blob(digest, 10)
    with pytest.raises(NotFoundError):
        repository.verify_blob("0" * 64, 1)


@pytest.mark.parametrize("model", ["", "..", ".", "a/b", "../m", "m\n", "m" * 129, "é"])
def test_names_that_could_leave_the_root_are_refused(tmp_path: Path, model: str) -> None:
    with pytest.raises(InvalidArgumentError, match="model"):
        Repository(tmp_path).package_dir(model, 1)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_digests_that_could_leave_the_root_are_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InvalidArgumentError, match="digest"):
        Repository(tmp_path).blob_path(digest)


def test_links_out_of_the_root_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put_package(outside, "m", 1)
    digest = put_blob(outside, b"secret")
    root = tmp_path / "root"
    (root / "packages").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "packages" / "m").symlink_to(outside / "packages" / "m")
    (root / "blobs" / digest[:2]).symlink_to(outside / "blobs" / digest[:2])
    repository = Repository(root)
    with pytest.raises(PermissionDeniedError, match="outside of the repository"):
        repository.read_manifest("m", 1)
    with pytest.raises(PermissionDeniedError, match="outside of the repository"):
        repository.verify_blob(digest, 6)


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    put_package(tmp_path / "real", "m", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Repository(tmp_path / "link").read_manifest("m", 1).model == "m"
