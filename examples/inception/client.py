"""Asks a server what is in pictures, over gRPC. Needs grpcio and Tessera's messages, no TensorFlow.

TensorFlow Serving's own client library does as well: the messages on the wire are the same.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import grpc
import numpy as np

from protos import serving_pb2

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_STRING, _INT64 = 7, 9  # TensorFlow's DataType
_PAUSE_S = 0.1


def request(options: argparse.Namespace) -> serving_pb2.PredictRequest:
    """Return the request for all pictures of the command line: a batch."""
    pictures = [path.read_bytes() for path in options.pictures]
    message = serving_pb2.PredictRequest(model_spec=serving_pb2.ModelSpec(name=options.model))
    if options.version is not None:
        message.model_spec.version.value = options.version
    shape = serving_pb2.TensorShape(dim=[serving_pb2.TensorShape.Dim(size=len(pictures))])
    message.inputs["images"].CopyFrom(
        serving_pb2.Tensor(dtype=_STRING, tensor_shape=shape, string_val=pictures),
    )
    if options.user is not None:
        users = [options.user] * len(pictures)
        message.inputs["user"].CopyFrom(serving_pb2.Tensor(dtype=_INT64, tensor_shape=shape, int64_val=users))
    return message


def answers(response: serving_pb2.PredictResponse) -> list[list[tuple[str, float]]]:
    """Return for each picture the names and their scores, best first."""
    classes, scores = response.outputs["classes"], response.outputs["scores"]
    shape = [dim.size for dim in classes.tensor_shape.dim]
    names = np.array([name.decode() for name in classes.string_val]).reshape(shape)
    # Servers answer in either form.
    flat = np.frombuffer(scores.tensor_content, np.float32) if scores.tensor_content else np.array(scores.float_val)
    return [list(zip(*row, strict=True)) for row in zip(names.tolist(), flat.reshape(shape).tolist(), strict=True)]


def ask_once(channel: grpc.Channel, options: argparse.Namespace) -> int:
    """Print what is in each picture; return the exit code."""
    predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PREDICT)
    message = request(options).SerializeToString()
    started_s = time.perf_counter()
    try:
        response = serving_pb2.PredictResponse.FromString(
            predict(message, timeout=options.timeout_s, wait_for_ready=True)
        )
    except grpc.RpcError as error:
        print(f"{options.server}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    took_ms = (time.perf_counter() - started_s) * 1e3
    for path, best in zip(options.pictures, answers(response), strict=True):
        print(path.name)
        for name, score in best:
            print(f"  {score:.4f}  {name}")
    print(f"version {response.model_spec.version.value}, {took_ms:.0f} ms")
    return 0


def watch(channel: grpc.Channel, options: argparse.Namespace) -> int:
    """Ask again and again until Ctrl-C; print what changes, then a sum; return the exit code."""
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(True))
    predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PREDICT)
    message = request(options).SerializeToString()
    versions, failures, last = Counter[int](), 0, None
    while not stopped:
        try:
            response = serving_pb2.PredictResponse.FromString(predict(message, timeout=options.timeout_s))
        except grpc.RpcError as error:
            failures += 1
            print(f"{error.code().name}: {error.details()}", flush=True)
            time.sleep(1)
            continue
        version, best = response.model_spec.version.value, answers(response)[0][0][0]
        versions[version] += 1
        if (version, best) != last:
            print(f"version {version}: {best}", flush=True)
        last = version, best
        time.sleep(_PAUSE_S)
    told = ", ".join(f"{count} by version {version}" for version, count in sorted(versions.items()))
    print(f"{versions.total()} answers ({told or 'none'}), {failures} failures", flush=True)
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="client.py", description=__doc__)
    made.add_argument("pictures", type=Path, nargs="+", metavar="JPEG", help="files; asked for together")
    made.add_argument(
        "--server", default="localhost:8500", metavar="HOST:PORT", help="who is asked (default: %(default)s)"
    )
    made.add_argument("--model", default="inception", help="name of the model (default: %(default)s)")
    made.add_argument("--version", type=int, help="version (default: the server decides)")
    made.add_argument("--user", type=int, metavar="N", help="whose pictures they are, for a model with users")
    made.add_argument("--timeout-s", type=float, default=30.0, help="deadline, seconds (default: %(default)s)")
    made.add_argument("--watch", action="store_true", help="ask until Ctrl-C, and count what failed")
    return made


def main() -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args()
    for path in options.pictures:
        if not path.is_file():
            print(f"{path}: no such file", file=sys.stderr)
            return 2
    limit = [("grpc.max_send_message_length", 1 << 28)]
    with grpc.insecure_channel(options.server, options=limit) as channel:
        return (watch if options.watch else ask_once)(channel, options)


if __name__ == "__main__":
    sys.exit(main())
