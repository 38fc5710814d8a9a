import pytest

import tessera.errors
from tessera.errors import Code, InvalidArgumentError, SettingsError, TesseraError, error_class

_CLASSES = [
    value
    for value in vars(tessera.errors).values()
    if isinstance(value, type) and issubclass(value, TesseraError) and value not in (TesseraError, SettingsError)
]


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda code: code.name)
def test_every_code_has_one_class_and_the_class_has_the_code(code: Code) -> None:
    found = error_class(code)
    assert found.code == code
    assert error_class(int(code)) is found
    assert [cls for cls in _CLASSES if cls.code == code] == ([] if found is TesseraError else [found])


def test_only_unknown_has_the_base_class() -> None:
    assert error_class(Code.UNKNOWN) is TesseraError
    assert len(_CLASSES) == len(Code) - 2  # neither OK nor UNKNOWN


@pytest.mark.parametrize("number", [17, 99, -1])
def test_numbers_that_grpc_does_not_define_are_unknown(number: int) -> None:
    assert error_class(number) is TesseraError


def test_ok_is_no_error() -> None:
    with pytest.raises(InvalidArgumentError, match="OK"):
        error_class(Code.OK)


def test_the_numbers_are_those_of_grpc() -> None:
    import grpc

    assert {status.name: status.value[0] for status in grpc.StatusCode} == {code.name: code.value for code in Code}


def test_the_message_is_the_text_without_the_class() -> None:
    assert TesseraError("blob ab: is damaged").message == "blob ab: is damaged"
    assert TesseraError().message == ""
