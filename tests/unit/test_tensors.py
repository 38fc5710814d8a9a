import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin.tensors import from_tensor, to_tensor
from tessera.errors import InvalidArgumentError

_INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.lists(_INT64, min_size=3, max_size=3), max_size=4))
def test_integers_survive_the_way_there_and_back(rows: list[list[int]]) -> None:
    assert from_tensor(to_tensor("ids", rows, 9)) == rows


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_strings_survive_the_way_there_and_back(texts: list[str]) -> None:
    assert from_tensor(to_tensor("line", texts, 7)) == texts


@given(st.floats(width=32, allow_nan=False))
def test_scalars_keep_their_rank(value: float) -> None:
    tensor = to_tensor("x", value, 1)
    assert not tensor.tensor_shape.dim
    assert from_tensor(tensor) == value


@pytest.mark.parametrize("dtype", [19, 10, 4])
def test_small_types(dtype: int) -> None:
    value: list[object] = [True, False] if dtype == 10 else [0, 1]
    assert from_tensor(to_tensor("x", value, dtype)) == value


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("[[1], [2, 3]]", 9),
        ('["a"]', 9),
        ("[1.5]", 9),
        ("[300]", 4),
        ("[1]", 7),
        ("[1]", 10),
        ("[9223372036854775808]", 9),
    ],
)
def test_values_that_do_not_fit_are_refused_with_the_name_of_the_input(text: str, dtype: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"input ids: got .* expected"):
        to_tensor("ids", json.loads(text), dtype)


def test_a_type_without_json_form_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="input z: DataType 8 has no JSON form"):
        to_tensor("z", [1], 8)
