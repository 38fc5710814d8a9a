"""Batching of a part of a graph: the pair of ops for model authors, the policies for operators, the graph rewrite.

    import batching

    batched, token = batching.batch({"x": x})            # many requests' rows together from here …
    logits = dense(batched["x"])
    logits = batching.unbatch(logits, token)             # … to here

Importing the package costs nothing: TensorFlow and the op library are loaded by the first use of one of the names
below. Servers, which read policy files, therefore never load Python TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batching.ops import Pad, Token, Trim, batch, batched, load_op_library, unbatch

__all__ = ["Pad", "Token", "Trim", "batch", "batched", "load_op_library", "unbatch"]


def __getattr__(name: str) -> Any:
    """Return the name of `batching.ops` that is asked for, loading that module."""
    if name not in __all__:
        raise AttributeError(f"module 'batching' has no attribute {name!r}")
    from batching import ops

    return getattr(ops, name)
