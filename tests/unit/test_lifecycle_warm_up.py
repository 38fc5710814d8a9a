"""Warm-up files: what is replayed, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protos import prediction_log_pb2 as pb
from protos import serving_pb2
from router.lifecycle.actions import Load
from router.lifecycle.config import ModelConfig
from router.lifecycle.versions import Candidate
from router.lifecycle.warm_up import FILE, MAX_RECORDS, Replay
from router.tfrecord import frame
from tessera.errors import Code, DataLossError, InvalidArgumentError, NotFoundError, TesseraError, UnimplementedError


class _Calls:
    def __init__(self, error: TesseraError | None = None) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.error = error

    def __call__(self, method: str, request: bytes, *, timeout_s: float) -> bytes:
        self.calls.append((method, request))
        if self.error is not None:
            raise self.error
        return b""


def _replay(version: Path, calls: _Calls, iterations: int = 0) -> None:
    load = Load("m", 3, 1, ModelConfig("m", version.parent), Candidate(version, ""))
    graph: Any = object()

    def caller(made_for: Load, of: Any) -> _Calls:
        assert made_for is load
        assert of is graph
        return calls

    Replay(caller, iterations)(load, graph)


def _write(version: Path, *records: bytes) -> Path:
    path = version / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"".join(map(frame, records)))
    return path


def _predict() -> pb.PredictionLog:
    request = serving_pb2.PredictRequest(output_filter=["y"])
    request.model_spec.name, request.model_spec.signature_name = "as_it_was_called", "sign"
    request.model_spec.version.value = 99
    return pb.PredictionLog(predict_log=pb.Call(request=request.SerializeToString()))


def test_every_request_is_replayed_to_the_new_version(tmp_path: Path) -> None:
    spec = serving_pb2.ModelSpec(name="other", version_label="canary")
    single = pb.Addressed(model_spec=spec).SerializeToString()
    tasks = pb.AddressedTasks(tasks=[pb.Addressed(model_spec=spec)] * 2).SerializeToString()
    logs = [
        _predict(),
        pb.PredictionLog(classify_log=pb.Call(request=single)),
        pb.PredictionLog(regress_log=pb.Call(request=single)),
        pb.PredictionLog(multi_inference_log=pb.Call(request=tasks)),
    ]
    _write(tmp_path, *(log.SerializeToString() for log in logs))
    calls = _Calls()
    _replay(tmp_path, calls, iterations=2)
    assert [method for method, _ in calls.calls[::2]] == ["Predict", "Classify", "Regress", "MultiInference"]
    assert calls.calls[0] == calls.calls[1]
    request = serving_pb2.PredictRequest.FromString(calls.calls[0][1])
    assert request.model_spec == serving_pb2.ModelSpec(name="m", signature_name="sign")
    assert request.output_filter == ["y"]
    assert pb.Addressed.FromString(calls.calls[2][1]).model_spec == serving_pb2.ModelSpec(name="m")
    sent = pb.AddressedTasks.FromString(calls.calls[6][1])
    assert [task.model_spec.name for task in sent.tasks] == ["m", "m"]


def test_without_a_file_nothing_is_done(tmp_path: Path) -> None:
    calls = _Calls()
    _replay(tmp_path, calls)
    assert calls.calls == []


def test_a_request_that_fails_fails_the_load_with_its_code(tmp_path: Path) -> None:
    path = _write(tmp_path, _predict().SerializeToString())
    with pytest.raises(NotFoundError) as caught:
        _replay(tmp_path, _Calls(NotFoundError("no such signature")))
    assert caught.value.message == f"warm-up request 1 of {path}: no such signature"


@pytest.mark.parametrize(
    ("log", "error", "text"),
    [
        (pb.PredictionLog(session_run_log=pb.Call()), UnimplementedError, "Unsupported log_type.*: session_run_log"),
        (pb.PredictionLog(predict_streamed_log=pb.Call()), UnimplementedError, "predict_streamed_log"),
        (pb.PredictionLog(), UnimplementedError, "Unsupported log_type for warmup: none"),
        (pb.PredictionLog(predict_log=pb.Call(request=b"\xff")), InvalidArgumentError, "request 2 of .*PredictionLog"),
    ],
)
def test_records_that_cannot_be_replayed(
    tmp_path: Path, log: pb.PredictionLog, error: type[TesseraError], text: str
) -> None:
    _write(tmp_path, _predict().SerializeToString(), log.SerializeToString())
    with pytest.raises(error, match=text):
        _replay(tmp_path, _Calls())


def test_a_file_may_have_so_many_records_and_no_more(tmp_path: Path) -> None:
    record = _predict().SerializeToString()
    _write(tmp_path / "1", *[record] * MAX_RECORDS)
    calls = _Calls()
    _replay(tmp_path / "1", calls)
    assert len(calls.calls) == MAX_RECORDS
    _write(tmp_path / "2", *[record] * (MAX_RECORDS + 1))
    with pytest.raises(InvalidArgumentError, match=r"exceeds the maximum \(1000\)"):
        _replay(tmp_path / "2", _Calls())


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_damaged_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = _write(tmp_path, _predict().SerializeToString())
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with pytest.raises(DataLossError, match="truncated"):
        _replay(tmp_path, _Calls())
    path.write_bytes(whole[:-cut] + bytes([whole[-cut] ^ 1]) + whole[len(whole) - cut + 1 :])
    with pytest.raises(TesseraError) as caught:
        _replay(tmp_path, _Calls())
    assert caught.value.code == Code.DATA_LOSS
