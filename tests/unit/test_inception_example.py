"""The programs of the Inception tutorial, as far as they need neither TensorFlow nor a server."""

import json
from pathlib import Path

import numpy as np
import pytest

from examples.inception import client, export, picture
from examples.inception.labels import CLASSES, made_up_labels, read_labels
from protos import serving_pb2
from tessera.errors import InvalidArgumentError


def test_made_up_labels_are_different_and_a_tabby_is_a_cat() -> None:
    labels = made_up_labels()
    assert len(set(labels)) == len(labels) == CLASSES
    assert labels[281] == "grey cat"


def test_labels_are_read_in_both_forms(tmp_path: Path) -> None:
    names = [f"name {number}" for number in range(CLASSES)]
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n")
    keras = {str(number): [f"n{number}", name.replace(" ", "_")] for number, name in enumerate(names)}
    (tmp_path / "labels.json").write_text(json.dumps(keras))
    assert read_labels(tmp_path / "labels.txt") == read_labels(tmp_path / "labels.json") == names


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("labels.txt", "one\ntwo\n", "got 2 names, expected 1,000"),
        ("labels.txt", "one\n\n" * 500, "got 500 names, expected 1,000"),
        ("labels.json", "[", "not as expected"),
        ("labels.json", '{"1": ["n1", "one"]}', "not as expected"),
    ],
)
def test_other_files_of_labels_are_refused(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidArgumentError, match=says):
        read_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--image-size 10", "--image-size: got 10, expected at least 75"),
        ("--users -1", "--users: got -1"),
        ("--weights no.h5", "--weights no.h5: no such file"),
        ("--network tiny --weights no.h5", "--weights: got --network tiny"),
        ("--like 3=1", "--like: got 3=1"),
        ("--users 10 --like 0=1", "--like: got 0=1"),
        ("--users 10 --like 10=1", "--like: got 10=1"),
        ("--users 10 --like 3=1000", "--like: got 3=1000"),
        ("--users 10 --like 3", "--like: got 3"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, arguments: str, says: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        export.check(export.parser().parse_args([str(tmp_path / "new"), *arguments.split()]))
    assert says in caught.value.message


def test_a_directory_that_exists_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="exists"):
        export.check(export.parser().parse_args([str(tmp_path)]))


def test_likes_are_numbers(tmp_path: Path) -> None:
    options = export.parser().parse_args([str(tmp_path / "new"), "--users=10", "--like=3=281", "--like=4=0"])
    assert export.check(options) == {3: 281, 4: 0}


def test_the_client_sends_all_pictures_together(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    arguments = [str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg"), "--user=7", "--version=2"]
    request = client.request(client.parser().parse_args(arguments))
    assert list(request.inputs["images"].string_val) == [b"a.jpg", b"b.jpg"]
    assert list(request.inputs["user"].int64_val) == [7, 7]
    assert [dim.size for dim in request.inputs["images"].tensor_shape.dim] == [2]
    assert request.model_spec.version.value == 2


@pytest.mark.parametrize("as_bytes", [False, True])
def test_the_client_reads_both_forms_of_an_answer(as_bytes: bool) -> None:
    response = serving_pb2.PredictResponse()
    classes, scores = response.outputs["classes"], response.outputs["scores"]
    for size in (2, 2):
        classes.tensor_shape.dim.add(size=size)
    classes.string_val.extend([b"cat", b"dog", b"bee", b"bat"])
    values = [0.5, 0.25, 0.75, 0.125]
    if as_bytes:
        scores.tensor_content = np.array(values, np.float32).tobytes()
    else:
        scores.float_val.extend(values)
    assert client.answers(response) == [[("cat", 0.5), ("dog", 0.25)], [("bee", 0.75), ("bat", 0.125)]]


def test_the_drawn_cat_is_symmetrical() -> None:
    pixels = picture.cat()
    assert (pixels[:, 1:] == pixels[:, :0:-1]).all()
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 5
