"""`tessera predict`: one request from JSON, over gRPC, with types taken from the model's own signature."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import grpc

from admin.arguments import json_object
from admin.discovery import running_cluster
from admin.serving_client import PREDICTION_SERVICE, call, open_channel
from admin.tensors import from_tensor, to_tensor
from protos import serving_pb2
from tessera.errors import InvalidArgumentError, UnavailableError


def add_to(verbs: Any) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser("predict", help="send one Predict request", description=__doc__)
    add_request_arguments(parser)
    parser.set_defaults(run=run)


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which request to send, and where to."""
    parser.add_argument("model", help="name of the model")
    parser.add_argument(
        "inputs",
        nargs="?",
        help="JSON object: input name → value or nested lists, as in '{\"x\": [1, 2]}' (default: read from stdin)",
    )
    parser.add_argument(
        "--router", metavar="HOST:PORT", help="default: the router of a running `tessera up`, else 127.0.0.1:8500"
    )
    parser.add_argument("--cluster", default="default", help="name of that cluster (default: %(default)s)")
    parser.add_argument("--version", type=int, help="version (default: the latest)")
    parser.add_argument("--label", help="version label instead of a version")
    parser.add_argument("--signature", default="serving_default", help="default: %(default)s")
    parser.add_argument("--output-filter", action="append", default=[], metavar="NAME", help="only these outputs")
    parser.add_argument("--timeout-s", type=float, default=30.0, help="deadline, seconds (default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Print the answer as JSON; the version and the time on stderr."""
    text, place = (options.inputs, "INPUTS") if options.inputs is not None else (sys.stdin.read(), "standard input")
    inputs = json_object(text, place)
    router = router_of(options)
    with open_channel(router) as channel:
        spec = spec_of(options)
        request = make_request(spec, signature_of(channel, router, spec, options.timeout_s), inputs, options)
        started_s = time.perf_counter()
        response = serving_pb2.PredictResponse.FromString(
            call(channel, PREDICTION_SERVICE + "Predict", request.SerializeToString(), options.timeout_s)
        )
        elapsed_ms = (time.perf_counter() - started_s) * 1e3
    outputs = {alias: from_tensor(tensor) for alias, tensor in sorted(response.outputs.items())}
    print(json.dumps(outputs, ensure_ascii=False))
    print(f"version {response.model_spec.version.value}, {elapsed_ms:.1f} ms", file=sys.stderr)


def router_of(options: argparse.Namespace) -> str:
    """Return the address of the router that is meant."""
    running = running_cluster(options.cluster)
    return str(options.router or (running["router"] if running else "127.0.0.1:8500"))


def spec_of(options: argparse.Namespace) -> serving_pb2.ModelSpec:
    """Return which model, version and signature is asked for."""
    spec = serving_pb2.ModelSpec(name=options.model, signature_name=options.signature)
    if options.version is not None:
        spec.version.value = options.version
    elif options.label:
        spec.version_label = options.label
    return spec


def make_request(
    spec: serving_pb2.ModelSpec,
    signature: serving_pb2.SignatureDef,
    inputs: Mapping[str, Any],
    options: argparse.Namespace,
) -> serving_pb2.PredictRequest:
    """Return the request with `inputs` (name → value or nested lists) as the signature's types.

    Raises:
        InvalidArgumentError: the signature has no such input, or the value does not fit; names it.
    """
    request = serving_pb2.PredictRequest(model_spec=spec, output_filter=options.output_filter)
    for alias, value in inputs.items():
        if alias not in signature.inputs:
            expected = ", ".join(sorted(signature.inputs))
            raise InvalidArgumentError(f"input {alias}: not in signature {options.signature}; expected {expected}")
        request.inputs[alias].CopyFrom(to_tensor(alias, value, signature.inputs[alias].dtype))
    return request


def signature_of(
    channel: grpc.Channel, router: str, spec: serving_pb2.ModelSpec, timeout_s: float
) -> serving_pb2.SignatureDef:
    """Ask the router for the signature that `spec` names.

    Raises:
        InvalidArgumentError: there is no such signature.
        TesseraError: what the router said.
    """
    try:
        return _signature(channel, spec, timeout_s)
    except UnavailableError as error:
        raise UnavailableError(f"router {router}: {error.message}") from None


def _signature(channel: grpc.Channel, spec: serving_pb2.ModelSpec, timeout_s: float) -> serving_pb2.SignatureDef:
    request = serving_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    answer = serving_pb2.GetModelMetadataResponse.FromString(
        call(channel, PREDICTION_SERVICE + "GetModelMetadata", request.SerializeToString(), timeout_s)
    )
    signatures = serving_pb2.SignatureDefMap.FromString(answer.metadata["signature_def"].value).signature_def
    if spec.signature_name not in signatures:
        names = sorted(name for name in signatures if not name.startswith("__"))  # others are TensorFlow's own
        raise InvalidArgumentError(f"--signature {spec.signature_name}: expected one of {', '.join(names)}")
    return signatures[spec.signature_name]
