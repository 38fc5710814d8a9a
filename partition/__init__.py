"""Offline: makes a package of a SavedModel, and checks it.

Importing this package is cheap; its functions import TensorFlow (about 3 s) when they are first looked up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partition.analysis import PackagePlan, PlanRow, plan_package
    from partition.batched import BatchOptions
    from partition.batched_model import plan_batches, write_batched_model
    from partition.package import write_package
    from partition.verify import VerifyReport, verify_package

_HOMES = {
    "BatchOptions": "batched",
    "PackagePlan": "analysis",
    "PlanRow": "analysis",
    "VerifyReport": "verify",
    "plan_batches": "batched_model",
    "plan_package": "analysis",
    "verify_package": "verify",
    "write_batched_model": "batched_model",
    "write_package": "package",
}
__all__ = [
    "BatchOptions",
    "PackagePlan",
    "PlanRow",
    "VerifyReport",
    "plan_batches",
    "plan_package",
    "verify_package",
    "write_batched_model",
    "write_package",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"partition.{_HOMES[name]}"), name)
