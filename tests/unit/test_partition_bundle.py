from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from partition import bundle as bundle_module
from partition.bundle import Bundle, Region
from partition.crc32c import crc32c, unmask
from partition.sstable import read_sstable
from tessera.errors import DataLossError, NotFoundError, UnimplementedError


def simple_crc32c(data: bytes) -> int:
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def test_crc_of_the_standard_vector() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0
    assert unmask((0xA282EAD8 + ((0xE3069283 >> 15) | (0xE3069283 << 17))) & 0xFFFFFFFF) == 0xE3069283


@given(st.integers(0, 700_000), st.integers(0, 700_000), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_crc_of_lanes_equals_crc_of_parts(size: int, cut: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()
    cut = min(cut, size)
    assert crc32c(data[cut:], crc32c(data[:cut])) == crc32c(data)
    assert crc32c(data[:100]) == simple_crc32c(data[:100])


def test_crc_of_many_bytes_equals_the_simple_one() -> None:
    data = np.random.default_rng(0).integers(0, 256, 4096 * 64 + 77, np.uint8).tobytes()
    assert crc32c(data) == simple_crc32c(data)


def write_bundle(path: Path) -> dict[str, np.ndarray]:
    """Save tensors of many names and types, one of them in slices, with the op that TensorFlow uses."""
    random = np.random.default_rng(5)
    values = {f"layer_{i}/kernel": random.standard_normal((3, i)).astype(np.float32) for i in range(1, 300)}
    values["table"] = random.standard_normal((300, 4)).astype(np.float32)
    values["int8"] = random.integers(-128, 127, (5, 7)).astype(np.int8)
    values["scalar"] = np.array(2.5, np.float64)
    names, slices, tensors = [], [], []
    for name, value in values.items():
        if name == "table":
            for start, length in ((0, 7), (7, 193), (200, 100)):
                names.append(name)
                slices.append(f"300 4 {start},{length}:-")
                tensors.append(value[start : start + length])
        else:
            names.append(name)
            slices.append("")
            tensors.append(value)
    columns = random.standard_normal((6, 10)).astype(np.float32)
    values["columns"] = columns
    for start in (0, 4):
        width = 4 if start == 0 else 6
        names.append("columns")
        slices.append(f"6 10 -:{start},{width}")
        tensors.append(columns[:, start : start + width])
    tf.raw_ops.SaveV2(prefix=str(path / "v"), tensor_names=names, shape_and_slices=slices, tensors=tensors)
    return values


def read(region: Region, dtype: type, unit_bytes: int = 1) -> np.ndarray:
    data = b"".join(bytes(chunk) for chunk in region.chunks(unit_bytes))
    return np.frombuffer(data, dtype).reshape(region.shape)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("bundle")
    return path / "v", write_bundle(path)


def test_every_tensor_is_read_as_it_was_saved(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    prefix, values = saved
    bundle = Bundle(prefix)
    for name, value in values.items():
        if name != "columns":
            assert read(bundle.region(name), value.dtype.type).tobytes() == value.tobytes()


@given(st.integers(0, 299), st.integers(1, 300))
@settings(max_examples=40, deadline=None)
def test_any_rows_of_a_sliced_tensor_can_be_read(
    saved: tuple[Path, dict[str, np.ndarray]], start: int, length: int
) -> None:
    prefix, values = saved
    length = min(length, 300 - start)
    region = Bundle(prefix).region("table", f"300 4 {start},{length}:-")
    assert np.array_equal(read(region, np.float32, 16), values["table"][start : start + length])


def test_chunks_are_bounded(saved: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "CHUNK_BYTES", 100)
    region = Bundle(saved[0]).region("table")
    sizes = [len(chunk) for chunk in region.chunks(16)]
    assert max(sizes) == 96
    assert sum(sizes) == region.bytes
    assert all(size % 16 == 0 for size in sizes)


def test_columns_are_read_only_as_they_were_saved(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    prefix, values = saved
    bundle = Bundle(prefix)
    assert np.array_equal(read(bundle.region("columns", "6 10 -:4,6"), np.float32), values["columns"][:, 4:])
    with pytest.raises(UnimplementedError, match="'columns': is stored in slices on another axis"):
        bundle.region("columns")


def test_wrong_questions_are_named(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    bundle = Bundle(saved[0])
    with pytest.raises(NotFoundError, match="has no tensor 'nope'"):
        bundle.region("nope")
    for spec in ("300 4 290,20:-", "301 4 0,3:-", "300 4 0,3", "x"):
        with pytest.raises(DataLossError, match="tensor 'table': slice"):
            bundle.region("table", spec)
    with pytest.raises(NotFoundError, match=r"other\.index"):
        Bundle(saved[0].with_name("other"))


def copy_of(saved: tuple[Path, dict[str, np.ndarray]], target: Path) -> Path:
    for file in saved[0].parent.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target / "v"


def test_damaged_data_is_noticed(saved: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    prefix = copy_of(saved, tmp_path)
    data = tmp_path / "v.data-00000-of-00001"
    region = Bundle(prefix).region("table")
    damaged = bytearray(data.read_bytes())
    damaged[region.extents[1].offset + 50] ^= 1
    data.write_bytes(damaged)
    with pytest.raises(DataLossError, match=r"data-00000-of-00001: 'table' has CRC-32C .*, expected"):
        read(region, np.float32)
    data.write_bytes(damaged[: region.extents[1].offset + 50])
    with pytest.raises(DataLossError, match="ends inside of 'table'"):
        read(region, np.float32)
    data.unlink()
    with pytest.raises(NotFoundError, match="the index places 'table' in it"):
        read(region, np.float32)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_index_is_refused(
    saved: tuple[Path, dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    good = Path(f"{saved[0]}.index").read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(good) - 49))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("index") / "bad.index"
    path.write_bytes(bad)
    try:
        entries = read_sstable(path)
    except DataLossError as error:
        assert str(path) in error.message  # noqa: PT017
    else:
        assert entries == read_sstable(Path(f"{saved[0]}.index"))  # the damage hit the unused metaindex
