"""Paths of the REST API."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.rest.routes import InferRoute, ReadRoute, is_api, parse
from tessera.errors import InvalidArgumentError


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models/half:predict", InferRoute("predict", "half", None, None)),
        ("/V1/Models/Half:PREDICT", InferRoute("predict", "Half", None, None)),
        ("/v1/models/a/versions/0007:classify", InferRoute("classify", "a", 7, None)),
        ("/v1/models/a/labels/canary:regress", InferRoute("regress", "a", None, "canary")),
        ("/v1/models/a%2Fb%20c/labels/%C3%A9:predict", InferRoute("predict", "a/b c", None, "é")),
    ],
)
def test_posts(path: str, route: InferRoute) -> None:
    assert parse("POST", path) == route


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/models/half", ReadRoute("half", None, None, False)),
        ("/v1/models/half/metadata", ReadRoute("half", None, None, True)),
        ("/v1/models/half/versions/3", ReadRoute("half", 3, None, False)),
        ("/v1/models/half/versions/3/metadata", ReadRoute("half", 3, None, True)),
        ("/v1/models/half/labels/stable/METADATA", ReadRoute("half", None, "stable", True)),
        ("/v1/models/metadata", ReadRoute("metadata", None, None, False)),
    ],
)
def test_gets(path: str, route: ReadRoute) -> None:
    assert parse("GET", path) == route


@pytest.mark.parametrize(
    ("verb", "path", "message"),
    [
        ("GET", "/v1/models", "Missing model name in request."),
        ("GET", "/v1/models/versions/1", "Missing model name in request."),
        ("GET", "/v1/models/", "Malformed request: GET /v1/models/"),
        ("GET", "/v1/models/a:predict", "Malformed request: GET /v1/models/a:predict"),
        ("POST", "/v1/models/a", "Malformed request: POST /v1/models/a"),
        ("POST", "/v1/models/a:explain", "Malformed request: POST /v1/models/a:explain"),
        ("POST", "/v1/models/a/versions/x:predict", "Malformed request: POST /v1/models/a/versions/x:predict"),
        ("POST", "/v1/models/a/b:predict", "Malformed request: POST /v1/models/a/b:predict"),
        ("PUT", "/v1/models/a:predict", "Malformed request: PUT /v1/models/a:predict"),
        (
            "POST",
            "/v1/models/a/versions/9999999999999999999:predict",
            "Failed to convert version: 9999999999999999999 to numeric.",
        ),
        ("GET", f"/v1/models/a/versions/{'9' * 5000}", f"Failed to convert version: {'9' * 5000} to numeric."),
    ],
)
def test_refusals(verb: str, path: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{re.escape(message)}$"):
        parse(verb, path)


def test_what_belongs_to_the_api() -> None:
    assert is_api("/v1/")
    assert is_api("/V1/anything")
    assert not is_api("/v1")
    assert not is_api("/v2/models")


@given(st.sampled_from(["GET", "POST", "HEAD"]), st.text(st.characters(max_codepoint=255), max_size=30))
def test_any_path_is_a_route_or_an_error(verb: str, text: str) -> None:
    try:
        route = parse(verb, "/v1/models/" + text)
    except InvalidArgumentError:
        return
    assert route.model
