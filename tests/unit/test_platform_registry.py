from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from router.platforms import find_platform
from router.platforms.registry import GROUP, _Platforms
from tessera.errors import FailedPreconditionError, InvalidArgumentError

installed = _Platforms([EntryPoint("foo", "nowhere_to_be_found:Platform", GROUP)])


def test_an_unknown_platform_is_refused_with_tensorflow_servings_text() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"^Model m requests unsupported platform caffe; expected one of foo$"
    ):
        find_platform("m", "caffe", installed)
    with pytest.raises(KeyError):
        installed["caffe"]


def test_a_platform_that_cannot_be_imported_says_why() -> None:
    reason = r"platform foo is installed, but ModuleNotFoundError: .*nowhere_to_be_found"
    with pytest.raises(InvalidArgumentError, match=rf"^Model m requests unsupported platform foo: {reason}"):
        find_platform("m", "foo", installed)
    with pytest.raises(FailedPreconditionError, match=f"^{reason}"):
        installed["foo"]
    assert list(installed) == ["foo"]
