"""The REST port as an application, without sockets and models."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from protos import serving_pb2
from router.rest.app import RestApp
from router.rest.dispatcher import Dispatcher
from router.rest.options import RestOptions, RestServices
from support.asgi import HandEngine, Reply, call
from tessera.errors import NotFoundError

PREDICT = "/v1/models/half:predict"
OK = (0, b'{"predictions": []}')


def status(request_bytes: bytes) -> bytes:
    spec = serving_pb2.GetModelStatusRequest.FromString(request_bytes).model_spec
    if spec.name != "half":
        raise NotFoundError(f"Could not find any versions of model {spec.name}")
    response = serving_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=spec.version.value or 123, state=30)
    return response.SerializeToString()


def metadata(request_bytes: bytes) -> bytes:
    request = serving_pb2.GetModelMetadataRequest.FromString(request_bytes)
    response = serving_pb2.GetModelMetadataResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = 123
    signatures = serving_pb2.SignatureDefMap()
    signature = signatures.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["x"].name = "x:0"
    signature.inputs["x"].dtype = 1
    signature.inputs["x"].tensor_shape.dim.add(size=-1)
    signature.outputs["v"].dtype = 101
    response.metadata["signature_def"].value = signatures.SerializeToString()
    return response.SerializeToString()


@pytest.fixture
def engine() -> Iterator[HandEngine]:
    engine = HandEngine(OK)
    yield engine
    engine.close()


SERVICES = RestServices(get_model_status=status, get_model_metadata=metadata, metrics=lambda: b"up 1\n")


def run(engine: HandEngine, scenario: Callable[[RestApp], Coroutine[Any, Any, Reply]], **options: Any) -> Reply:
    """Run `scenario` with an application whose dispatcher is attached."""

    async def attached() -> Reply:
        settings = RestOptions(**options)
        dispatcher = Dispatcher(engine, settings.timeout_s)
        dispatcher.attach()
        try:
            return await scenario(RestApp(dispatcher, SERVICES, settings))
        finally:
            dispatcher.detach()

    return asyncio.run(attached())


def ask(engine: HandEngine, verb: str, path: str, *arguments: Any, leaves: bool = False, **options: Any) -> Reply:
    return run(engine, lambda app: call(app, verb, path, *arguments, leaves=leaves), **options)


def error_of(reply: Reply) -> str:
    content = json.loads(reply.body)
    assert reply.body == json.dumps(content, indent=4).encode()
    return str(content["error"])


def test_a_predict_reaches_the_engine_with_its_headers(engine: HandEngine) -> None:
    reply = ask(engine, "POST", PREDICT + "?q=1", b"{}", {"X-User": "7"}, timeout_s=3.0)
    assert (reply.status, reply.body) == (200, OK[1])
    assert reply.headers == {"content-type": "application/json", "content-length": str(len(OK[1]))}
    assert engine.started == [("predict", "half", None, None, b"{}", [(b"x-user", b"7")], 4.0)]


def test_body_in_parts_and_versions(engine: HandEngine) -> None:
    ask(engine, "POST", "/v1/models/half/versions/2:classify", [b'{"a', b'":', b"1}"])
    ask(engine, "POST", "/v1/models/half/labels/new:regress", b"{}")
    assert [request[:5] for request in engine.started] == [
        ("classify", "half", 2, None, b'{"a":1}'),
        ("regress", "half", None, "new", b"{}"),
    ]


@pytest.mark.parametrize(
    ("code", "status_code"),
    [
        *((0, 200), (1, 499), (2, 500), (3, 400), (4, 504), (5, 404), (6, 409), (7, 403), (8, 429), (9, 400)),
        *((10, 409), (11, 400), (12, 501), (13, 500), (14, 503), (15, 500), (16, 401)),
    ],
)
def test_codes(engine: HandEngine, code: int, status_code: int) -> None:
    engine.at_once = (code, b"{}")
    assert ask(engine, "POST", PREDICT, b"{}").status == status_code


def test_an_answer_that_comes_later(engine: HandEngine) -> None:
    engine.at_once = None

    async def scenario(app: RestApp) -> Reply:
        first = asyncio.create_task(call(app, "POST", PREDICT, b"1"))
        second = asyncio.create_task(call(app, "POST", PREDICT, b"2"))
        await engine.wait_for(2)
        engine.answer(2, 0, b"two")
        engine.answer(1, 0, b"one")
        engine.answer(77, 0, b"of a request that nobody waits for")
        assert (await second).body == b"two"
        return await first

    assert run(engine, scenario).body == b"one"


def test_a_request_that_takes_too_long(engine: HandEngine) -> None:
    engine.at_once = None
    reply = ask(engine, "POST", PREDICT, b"{}", timeout_s=0.05)
    assert (reply.status, error_of(reply)) == (504, "Timed out waiting for notification")
    assert engine.cancelled == [1]


def test_a_client_that_goes_away_cancels(engine: HandEngine) -> None:
    engine.at_once = None
    # Not quick, so that the sweep looks whether the client is there.
    reply = ask(engine, "POST", PREDICT, b"{}", timeout_s=20.0)
    assert reply.status == 499
    assert engine.cancelled == [1]


def test_a_client_that_goes_away_before_its_body_has_come(engine: HandEngine) -> None:
    reply = ask(engine, "POST", PREDICT, b"{", leaves=True)
    assert reply.status == 499
    assert engine.started == []


def test_gzip(engine: HandEngine) -> None:
    text = json.dumps({"instances": list(range(5000))}).encode()
    for body in (gzip.compress(text), gzip.compress(text[:50]) + gzip.compress(text[50:])):
        ask(engine, "POST", PREDICT, body, {"Content-Encoding": "x-gzip"})
        assert engine.started[-1][4] == text
    reply = ask(engine, "POST", PREDICT, gzip.compress(text), {"Content-Encoding": "gzip"}, max_body_bytes=1000)
    assert reply.status == 400
    assert error_of(reply) == "request body: got more than 1000 bytes after decompression, which is the limit"
    for damaged in (b"plain", gzip.compress(text)[:-20]):
        reply = ask(engine, "POST", PREDICT, damaged, {"Content-Encoding": "gzip"})
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert error_of(reply).startswith("request body: Content-Encoding says gzip, but: ")


def test_bodies_are_bounded_one_by_one_and_together(engine: HandEngine) -> None:
    reply = ask(engine, "POST", PREDICT, [b"x" * 600, b"y" * 600], max_body_bytes=1000)
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    engine.at_once = None

    async def scenario(app: RestApp) -> Reply:
        first = asyncio.create_task(call(app, "POST", PREDICT, b"x" * 80))
        await engine.wait_for(1)
        refused = await call(app, "POST", PREDICT, b"y" * 80)
        engine.answer(1, 0, b"{}")
        await first
        accepted = asyncio.create_task(call(app, "POST", PREDICT, b"z" * 80))
        await engine.wait_for(2)
        engine.answer(2, 0, b"{}")
        assert (await accepted).status == 200
        return refused

    reply = run(engine, scenario, max_buffered_bytes=100)
    assert reply.status == 429
    assert error_of(reply) == "request body: bodies of 100 bytes are held, which is the limit; retry later"


def test_cors(engine: HandEngine) -> None:
    reply = ask(engine, "OPTIONS", PREDICT, b"", {"Origin": "https://example.com"}, cors=True)
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["access-control-allow-methods"] == "POST, GET"
    assert reply.headers["access-control-allow-headers"] == "Content-Type"
    assert (ask(engine, "OPTIONS", PREDICT).status, ask(engine, "OPTIONS", PREDICT).body) == (400, b"")
    assert ask(engine, "POST", PREDICT, b"{}", cors=True).headers["access-control-allow-origin"] == "*"
    assert ask(engine, "GET", "/v1/models", cors=True).headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in ask(engine, "POST", PREDICT, b"{}").headers


def test_compressed_answers_are_an_option(engine: HandEngine) -> None:
    engine.at_once = (0, b"[" + b"1, " * 1000 + b"1]")
    accepts = {"Accept-Encoding": "deflate, gzip"}
    assert "content-encoding" not in ask(engine, "POST", PREDICT, b"{}", accepts).headers
    reply = ask(engine, "POST", PREDICT, b"{}", accepts, gzip_responses=True)
    assert (reply.headers["content-encoding"], gzip.decompress(reply.body)) == ("gzip", engine.at_once[1])
    assert "content-encoding" not in ask(engine, "POST", PREDICT, b"{}", gzip_responses=True).headers


def test_status_and_metadata(engine: HandEngine) -> None:
    reply = ask(engine, "GET", "/v1/models/half/versions/7")
    entry = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert json.loads(reply.body) == {"model_version_status": [entry]}
    reply = ask(engine, "GET", "/v1/models/none")
    assert (reply.status, error_of(reply)) == (404, "Could not find any versions of model none")
    reply = ask(engine, "GET", "/v1/models/half/metadata")
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert json.loads(reply.body) == {
        "model_spec": {"name": "half", "signature_name": "", "version": "123"},
        "metadata": {
            "signature_def": {
                "signature_def": {
                    "serving_default": {
                        "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": shape, "name": "x:0"}},
                        "outputs": {"v": {"dtype": "DT_FLOAT_REF", "name": ""}},
                        "method_name": "tensorflow/serving/predict",
                        "defaults": {},
                    }
                }
            }
        },
    }


def test_what_is_not_the_api(engine: HandEngine) -> None:
    path = "/monitoring/prometheus/metrics"
    reply = ask(engine, "GET", path, metrics_path=path)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"up 1\n", "text/plain")
    reply = ask(engine, "GET", path + "/x", metrics_path=path)
    assert reply.status == 400
    assert reply.body == b"Unexpected path: /monitoring/prometheus/metrics/x. Should be " + path.encode()
    assert ask(engine, "GET", path).status == 404
    assert ask(engine, "GET", "/healthz").status == 200
    assert ask(engine, "POST", "/healthz").headers["allow"] == "GET"
    assert ask(engine, "GET", "/").status == 404


def test_ready_says_what_is_missing(engine: HandEngine) -> None:
    assert json.loads(ask(engine, "GET", "/readyz").body) == {"status": "ready", "missing": []}

    async def scenario(_app: RestApp) -> Reply:
        services = RestServices(get_model_status=status, get_model_metadata=metadata, missing=lambda: ["model a"])
        return await call(RestApp(Dispatcher(engine, 1.0), services, RestOptions()), "GET", "/readyz")

    reply = run(engine, scenario)
    assert (reply.status, json.loads(reply.body)) == (503, {"status": "not ready", "missing": ["model a"]})


def test_a_bug_is_an_answer_and_no_secret(engine: HandEngine, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_request: bytes) -> bytes:
        raise KeyError("secret")

    async def scenario(_app: RestApp) -> Reply:
        services = RestServices(get_model_status=broken, get_model_metadata=broken)
        return await call(RestApp(Dispatcher(engine, 1.0), services, RestOptions()), "GET", "/v1/models/half")

    reply = run(engine, scenario)
    assert (reply.status, error_of(reply)) == (500, "unexpected error; the router's log has more")
    assert "secret" in caplog.text
