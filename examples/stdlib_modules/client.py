"""What a user's program does: ask for predictions with TensorFlow Serving's own client library."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Answer:
    """The likeliest modules for some lines, best first.

    Attributes:
        modules: str [lines, top_k].
        scores: float32 [lines, top_k].
    """

    modules: np.ndarray
    scores: np.ndarray


class ServedModel:
    """The model behind a server that speaks TensorFlow Serving's Predict."""

    def __init__(self, address: str, model_name: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._model_name = model_name

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def request(self, lines: Sequence[str]) -> predict_pb2.PredictRequest:
        """Return the request for `lines`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model_name
        request.inputs["line"].CopyFrom(tf.make_tensor_proto(list(lines), tf.string, [len(lines)]))
        return request

    def ask(self, lines: Sequence[str]) -> Answer:
        """Return the served answer for `lines`.

        Raises:
            grpc.RpcError: the server refused, or did not answer within 30 s.
        """
        outputs = self._stub.Predict(self.request(lines), timeout=_TIMEOUT_S).outputs
        modules = tf.make_ndarray(outputs["module"]).astype("U")
        return Answer(modules, tf.make_ndarray(outputs["score"]))

    def latencies_ms(self, lines: Iterable[str]) -> np.ndarray:
        """Return how long each line took, asked one after the other, as milliseconds [lines]."""
        taken = []
        for request in [self.request([line]) for line in lines]:
            start = time.perf_counter()
            self._stub.Predict(request, timeout=_TIMEOUT_S)
            taken.append((time.perf_counter() - start) * 1000)
        return np.array(taken)

    def requests_per_s(self, lines: Sequence[str], *, clients: int, duration_s: float) -> float:
        """Return the rate that `clients` threads of this process reach together, one line a request.

        Raises:
            grpc.RpcError: a request failed.
        """
        requests = [self.request([line]) for line in lines]
        counts, failures = [0] * clients, list[grpc.RpcError]()
        end = time.monotonic() + duration_s

        def run(client: int) -> None:
            while time.monotonic() < end and not failures:
                try:
                    self._stub.Predict(
                        requests[(client + counts[client] * clients) % len(requests)], timeout=_TIMEOUT_S
                    )
                except grpc.RpcError as error:
                    failures.append(error)
                counts[client] += 1

        threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return sum(counts) / duration_s


class LocalModel:
    """The same SavedModel, whole, in plain TensorFlow in this process."""

    def __init__(self, folder: str) -> None:
        self._loaded = tf.saved_model.load(folder)
        self._signature = self._loaded.signatures["serving_default"]

    def ask(self, lines: Sequence[str]) -> Answer:
        """Return TensorFlow's answer for `lines`."""
        outputs = self._signature(line=tf.constant(list(lines)))
        return Answer(outputs["module"].numpy().astype("U"), outputs["score"].numpy())


def joined(answers: Sequence[Answer]) -> Answer:
    """Return the answers of several requests as one."""
    return Answer(np.concatenate([a.modules for a in answers]), np.concatenate([a.scores for a in answers]))
