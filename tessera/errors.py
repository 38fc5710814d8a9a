"""The error tree. Every error that leaves a part of Tessera is one of these.

Each class stands for one gRPC status code, so that an error is converted at the edge exactly once: by
`placement.etcd_store` (etcd), by `cpp_ext/python/status_caster.h` (native core) and by the gRPC servers.
Messages name the field, what was given and what was expected.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Status codes with gRPC's (and TensorFlow's) numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class TesseraError(Exception):
    """Base of all errors of Tessera; `code` is the gRPC status that a client sees."""

    code: Code = Code.UNKNOWN

    @property
    def message(self) -> str:
        """The text without the class name."""
        return str(self.args[0]) if self.args else ""


class CancelledError(TesseraError):
    """The caller gave up."""

    code = Code.CANCELLED


class InvalidArgumentError(TesseraError):
    """The request is wrong whatever the state of the system."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceededError(TesseraError):
    """Time ran out; a write may or may not have happened."""

    code = Code.DEADLINE_EXCEEDED


class NotFoundError(TesseraError):
    """What was named does not exist."""

    code = Code.NOT_FOUND


class AlreadyExistsError(TesseraError):
    """What was to be created exists."""

    code = Code.ALREADY_EXISTS


class PermissionDeniedError(TesseraError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhaustedError(TesseraError):
    """A stated limit (memory, queue, message size) was reached."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPreconditionError(TesseraError):
    """The system is not in the state that the call needs; repeating it as it is does not help."""

    code = Code.FAILED_PRECONDITION


class AbortedError(TesseraError):
    """A compare-and-swap lost against another writer; read again, then retry."""

    code = Code.ABORTED


class OutOfRangeError(TesseraError):
    """A position past the end."""

    code = Code.OUT_OF_RANGE


class UnimplementedError(TesseraError):
    """The operation is not offered."""

    code = Code.UNIMPLEMENTED


class InternalError(TesseraError):
    """An invariant of Tessera itself is broken."""

    code = Code.INTERNAL


class UnavailableError(TesseraError):
    """A peer cannot be reached now; retrying later, or elsewhere, may work."""

    code = Code.UNAVAILABLE


class DataLossError(TesseraError):
    """Stored bytes are damaged: size, digest or format is not what its name promises."""

    code = Code.DATA_LOSS


class UnauthenticatedError(TesseraError):
    """The caller is not who it must be."""

    code = Code.UNAUTHENTICATED


class SettingsError(InvalidArgumentError):
    """A flag, environment variable or file entry is unknown or malformed."""


_BY_CODE: dict[Code, type[TesseraError]] = {
    cls.code: cls
    for cls in (
        CancelledError,
        InvalidArgumentError,
        DeadlineExceededError,
        NotFoundError,
        AlreadyExistsError,
        PermissionDeniedError,
        ResourceExhaustedError,
        FailedPreconditionError,
        AbortedError,
        OutOfRangeError,
        UnimplementedError,
        InternalError,
        UnavailableError,
        DataLossError,
        UnauthenticatedError,
    )
}


def error_class(code: int) -> type[TesseraError]:
    """Return the class for a gRPC status code; `TesseraError` for UNKNOWN and for numbers that gRPC does not define.

    Raises:
        InvalidArgumentError: code is OK, which is not an error.
    """
    if code == Code.OK:
        raise InvalidArgumentError("code: got OK (0), expected the code of an error")
    return _BY_CODE.get(Code(code), TesseraError) if code in Code._value2member_map_ else TesseraError
