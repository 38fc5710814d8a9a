from types import MappingProxyType

import pytest

from protos import serving_pb2
from router.catalog import Catalog, VersionState, VersionStatus
from router.model_service import ModelService
from tessera.errors import Code, InvalidArgumentError, NotFoundError, TesseraError, UnavailableError

_CATALOG = Catalog(
    models=MappingProxyType(
        {
            "ranker": {
                1: VersionStatus(VersionState.AVAILABLE, signature_defs=b"one"),
                2: VersionStatus(VersionState.AVAILABLE, signature_defs=b"two"),
                3: VersionStatus(VersionState.END, Code.DATA_LOSS, "blob ab12 is damaged"),
            }
        }
    ),
    labels=MappingProxyType({"ranker": {"stable": 1, "gone": 7}}),
)
_SERVICE = ModelService(lambda: _CATALOG)


def _spec(name: str = "ranker", version: int | None = None, label: str = "") -> serving_pb2.ModelSpec:
    spec = serving_pb2.ModelSpec(name=name)
    if version is not None:
        spec.version.value = version
    if label:
        spec.version_label = label
    return spec


def _status(spec: serving_pb2.ModelSpec) -> list[tuple[int, int, str]]:
    request = serving_pb2.GetModelStatusRequest(model_spec=spec)
    answer = serving_pb2.GetModelStatusResponse.FromString(_SERVICE.get_model_status(request.SerializeToString()))
    return [(s.version, s.state, s.status.error_message) for s in answer.model_version_status]


def test_status_lists_versions_largest_first_with_their_errors() -> None:
    assert _status(_spec()) == [(3, 50, "blob ab12 is damaged"), (2, 30, ""), (1, 30, "")]
    assert _status(_spec(version=2)) == [(2, 30, "")]
    assert _status(_spec(label="stable")) == [(1, 30, "")]


def test_labels_are_not_known_while_the_server_starts() -> None:
    service = ModelService(lambda: Catalog(labels={"ranker": {"stable": 1}}, labels_known=False))
    with pytest.raises(UnavailableError, match=r"Model labels does not init yet\.canary"):
        service.get_model_status(
            serving_pb2.GetModelStatusRequest(model_spec=_spec(label="canary")).SerializeToString()
        )
    with pytest.raises(NotFoundError, match="Could not find any versions of model ranker"):
        service.get_model_status(
            serving_pb2.GetModelStatusRequest(model_spec=_spec(label="stable")).SerializeToString()
        )


@pytest.mark.parametrize(
    ("spec", "error", "text"),
    [
        (_spec("other"), NotFoundError, "Could not find any versions of model other"),
        (_spec(version=7), NotFoundError, "Could not find version 7 of model ranker"),
        (_spec(label="canary"), InvalidArgumentError, "Unrecognized servable version label: canary"),
        (_spec(label="gone"), NotFoundError, "Could not find version 7 of model ranker"),
        (_spec(""), InvalidArgumentError, "ModelSpec has no name specified."),
    ],
)
def test_wrong_status_requests_get_the_texts_of_tensorflow_serving(
    spec: serving_pb2.ModelSpec, error: type[TesseraError], text: str
) -> None:
    with pytest.raises(error, match=text):
        _status(spec)


def test_requests_without_a_spec_or_that_do_not_parse() -> None:
    with pytest.raises(InvalidArgumentError, match="Missing ModelSpec"):
        _SERVICE.get_model_status(b"")
    with pytest.raises(InvalidArgumentError, match="GetModelStatusRequest: cannot be parsed"):
        _SERVICE.get_model_status(b"\x0a\xff")


def _metadata(spec: serving_pb2.ModelSpec, *fields: str) -> serving_pb2.GetModelMetadataResponse:
    request = serving_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=fields)
    return serving_pb2.GetModelMetadataResponse.FromString(_SERVICE.get_model_metadata(request.SerializeToString()))


def test_metadata_is_of_the_largest_available_version() -> None:
    answer = _metadata(_spec(), "signature_def")
    assert answer.model_spec.version.value == 2
    assert answer.metadata["signature_def"].value == b"two"
    assert answer.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    assert _metadata(_spec(label="stable"), "signature_def").metadata["signature_def"].value == b"one"


@pytest.mark.parametrize(
    ("spec", "fields", "error", "text"),
    [
        (_spec(), (), InvalidArgumentError, "must specify at least one metadata_field"),
        (_spec(), ("weights",), InvalidArgumentError, "Metadata field weights is not supported"),
        (_spec(version=3), ("signature_def",), NotFoundError, r"Servable not found for request: Specific\(ranker, 3\)"),
        (_spec("other"), ("signature_def",), NotFoundError, r"Servable not found for request: Latest\(other\)"),
    ],
)
def test_wrong_metadata_requests_get_the_texts_of_tensorflow_serving(
    spec: serving_pb2.ModelSpec, fields: tuple[str, ...], error: type[TesseraError], text: str
) -> None:
    with pytest.raises(error, match=text):
        _metadata(spec, *fields)
