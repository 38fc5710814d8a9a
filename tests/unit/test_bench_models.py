"""The models that are measured: stock SavedModels, and requests whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
from tensorflow_serving.apis import predict_pb2

from bench import models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save(models.HalfPlusTwo, tmp_path_factory.mktemp("models") / "half_plus_two")


def test_half_plus_two(tiny: Path) -> None:
    request = models.request(tiny, "half_plus_two", models.tiny_inputs())
    np.testing.assert_array_equal(request.expected["y"], [2.5, 3.0, 4.5])
    message = predict_pb2.PredictRequest.FromString(request.wire)
    assert message.model_spec.name == "half_plus_two"
    assert list(message.inputs) == ["x"]


def test_a_saved_model_is_made_once(tiny: Path) -> None:
    def not_again() -> models.HalfPlusTwo:
        raise AssertionError("made twice")

    assert models.save(not_again, tiny) == tiny


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ([2.5, 3.0, 4.5], ""),
        ([2.5, 3.0, 4.6], "output y: got"),
        ([2.5, 3.0], "output y: got"),
        (None, "got outputs []"),
    ],
)
def test_a_wrong_answer_is_told(values: list[float] | None, wrong: str) -> None:
    response = predict_pb2.PredictResponse()
    if values is not None:
        response.outputs["y"].dtype = 1
        response.outputs["y"].tensor_shape.dim.add(size=len(values))
        response.outputs["y"].float_val.extend(values)
    expected = {"y": np.array([2.5, 3.0, 4.5], np.float32)}
    said = models.check_response(response.SerializeToString(), expected)
    assert said.startswith(wrong)
    assert bool(said) == bool(wrong)


def test_recommender_answers_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "TABLE_ROWS", 50)
    model, inputs = models.Recommender(), models.recommender_inputs(3)
    scores = model.serve(**inputs)["score"].numpy()
    assert scores.shape == (3, 1)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(np.unique(scores)) == 3
    alone = model.serve(**{alias: value[1:2] for alias, value in inputs.items()})["score"].numpy()
    np.testing.assert_allclose(alone, scores[1:2], rtol=1e-5)
