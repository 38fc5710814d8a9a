"""The pair of ops for model authors: what lies between `batch` and `unbatch` may run once for many requests.

In plain TensorFlow the pair passes tensors through (a batch of one request), so a model gives the same answers
everywhere; gradients pass through too. Outside of a `tf.function` there is nothing to batch: only the checks are made.

Importing this module imports TensorFlow and loads the op library. A process that only loads a SavedModel with the pair
calls `batching.load_op_library()` before `tf.saved_model.load`.
"""

from __future__ import annotations

import functools
import inspect
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops.control_flow_v2_func_graphs import (
    CondBranchFuncGraph,
    WhileBodyFuncGraph,
    WhileCondFuncGraph,
)

from batching.leaves import Key, Leaf, check_rows, common_rows, leaves, one_per_leaf
from batching.library import batch_op, load_op_library, unbatch_op
from batching.outside import check_region
from batching.padding import Pad, Trim, pad_attributes, trim_attributes
from tessera.errors import FailedPreconditionError, InvalidArgumentError

__all__ = ["Pad", "Token", "Trim", "batch", "batched", "load_op_library", "unbatch"]

Structure = Any
"""A tensor, or nested dicts, lists and tuples of tensors."""

_CONTROL_FLOW = (CondBranchFuncGraph, WhileBodyFuncGraph, WhileCondFuncGraph)

_NAME = re.compile(r"[A-Za-z0-9_./-]+")

load_op_library()


@dataclass(eq=False)
class Token:
    """Connects `batch` with its `unbatch`; only to be handed on, and in the function that made it.

    Attributes:
        region: name of the region, for policies and statistics.
    """

    region: str
    _inputs: list[Leaf]
    _pads: list[Pad | None]
    _tensor: tf.Tensor | None  # None outside of functions
    _ended: bool = False


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def batch(
    tensors: Structure, *, name: str | None = None, pad: Pad | Mapping[Key, Pad] | None = None
) -> tuple[Structure, Token]:
    """Begin a region that may run once for many requests, and return its inputs and what `unbatch` needs.

    Row i (dimension 0) of what is made of the tensors inside may depend only on row i of the inputs, and on weights and
    constants. In the region's inputs dimension 0 has no static size: it is the rows of all requests of a batch.

    Args:
        tensors: dense tensors of rank ≥ 1, all with the same number of rows.
        name: of the region, for policies and statistics; regions with one name share both. None: made of the
            function's name and the name scope, unique in the function.
        pad: the inputs with a dimension of variable length: position or dict key (for nested structures a tuple of
            them) → `Pad`; for a single tensor just its `Pad`.

    Returns:
        The same structure of tensors, and the token.

    Raises:
        InvalidArgumentError: a tensor cannot be batched, or `pad` does not fit; names it.
    """
    inputs = leaves(tensors, "tensors")
    if not inputs:
        raise InvalidArgumentError("tensors: got none, expected at least one")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise InvalidArgumentError(f"name: is {name!r}, expected None or letters, digits and some of _ . - /")
    common_rows(inputs)
    pads: list[Pad | None] = one_per_leaf(pad, inputs, Pad, "pad")
    attributes = pad_attributes(inputs, pads)
    flat = [leaf.tensor for leaf in inputs]
    if _current_function() is None:
        token = Token(name or "batch", inputs, pads, None)
    else:
        region = name or _new_region_name()
        flat, token_tensor = batch_op(flat, region, attributes)
        token = Token(region, inputs, pads, token_tensor)
    return tf.nest.pack_sequence_as(tensors, flat), token


@tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
def unbatch(tensors: Structure, token: Token, *, trim: Trim | Mapping[Key, Trim] | None = None) -> Structure:
    """End the region that `token` is of, and return the request's own rows.

    Args:
        tensors: all that is used outside of the region; each has the rows of the batch, in their order, in dimension 0.
        token: what `batch` returned, in the same function.
        trim: outputs with a dimension to cut back to the request's own length: key, as for `pad` → `Trim`.

    Returns:
        The same structure of tensors.

    Raises:
        InvalidArgumentError: a tensor does not come from the region, or the region uses a value of one request that is
            no input of `batch`; names the op and the value. Or `trim` does not fit.
        FailedPreconditionError: the token was used, or is of another function.

    Cost: a walk over the ops of the region and those that its values from outside come from, when traced.
    """
    if not isinstance(token, Token):
        raise InvalidArgumentError(f"token: is a {type(token).__name__}, expected what batching.batch returned")
    if token._ended:
        raise FailedPreconditionError(f"region {token.region}: has ended, expected one unbatch for all its outputs")
    outputs = leaves(tensors, f"region {token.region}: tensors")
    if not outputs:
        raise InvalidArgumentError(f"region {token.region}: tensors: got none, expected at least one")
    common_rows(outputs)
    trims: list[Trim | None] = one_per_leaf(trim, outputs, Trim, f"region {token.region}: trim")
    attributes = trim_attributes(outputs, trims, token._inputs, token._pads)
    flat = [leaf.tensor for leaf in outputs]
    rows = common_rows(token._inputs)
    if (None if token._tensor is None else token._tensor.graph) is not _current_function():
        raise FailedPreconditionError(
            f"region {token.region}: began in another function (or branch, or loop), expected its end in the same"
        )
    if token._tensor is None:
        assert rows is not None
        check_rows(outputs, rows)
    else:
        check_region(token.region, token._tensor.op, outputs)
        flat = unbatch_op(flat, token._tensor, attributes)
        _restore_sizes(flat, rows, trims, attributes["trim_inputs"], token)
    token._ended = True
    return tf.nest.pack_sequence_as(tensors, flat)


def _restore_sizes(
    tensors: list[tf.Tensor], rows: int | None, trims: list[Trim | None], trim_inputs: list[int], token: Token
) -> None:
    """Give the tensors the static sizes that the request's inputs have; loops insist on them."""
    for i, tensor in enumerate(tensors):
        if tensor.shape.rank is None:
            continue
        sizes: list[int | None] = [rows, *[None] * (tensor.shape.rank - 1)]
        trim = trims[i]
        if trim is not None:
            like, pad = token._inputs[trim_inputs[i]].tensor, token._pads[trim_inputs[i]]
            assert pad is not None
            sizes[trim.dim] = None if like.shape.rank is None else like.shape[pad.dim]
        tensor.set_shape(sizes)


@overload
def batched(
    function: Callable[..., Structure],
    *,
    name: str | None = None,
    pad: Mapping[Key, Pad] | None = None,
    trim: Trim | Mapping[Key, Trim] | None = None,
) -> Callable[..., Structure]: ...
@overload
def batched(
    function: None = None,
    *,
    name: str | None = None,
    pad: Mapping[Key, Pad] | None = None,
    trim: Trim | Mapping[Key, Trim] | None = None,
) -> Callable[[Callable[..., Structure]], Callable[..., Structure]]: ...


def batched(
    function: Callable[..., Structure] | None = None,
    *,
    name: str | None = None,
    pad: Mapping[Key, Pad] | None = None,
    trim: Trim | Mapping[Key, Trim] | None = None,
) -> Any:
    """Make a region of `function`: its arguments are batched, its results unbatched. Usable as a decorator.

    All arguments are (structures of) tensors; bind others first, for example with `functools.partial`, and decorate
    bound methods (`self.cell = batching.batched(self.cell)`).

    Args:
        function: of tensors.
        name: as for `batch`.
        pad: parameter name → `Pad`.
        trim: as for `unbatch`; `like` is a parameter name.
    """
    if function is None:
        return functools.partial(batched, name=name, pad=pad, trim=trim)
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Structure:
        bound = signature.bind(*args, **kwargs)
        inside, token = batch(dict(bound.arguments), name=name, pad=pad)
        bound.arguments.update(inside)
        return unbatch(function(*bound.args, **bound.kwargs), token, trim=trim)

    return call


def _current_function() -> tf.Graph | None:
    """Return the graph that is made, None outside of functions."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


_region_names: weakref.WeakKeyDictionary[tf.Graph, set[str]] = weakref.WeakKeyDictionary()


def _new_region_name() -> str:
    """Return a name for a region that is unique in the function that is traced, with its branches and loops."""
    graph = tf.compat.v1.get_default_graph()
    scope = graph.get_name_scope()
    while isinstance(graph, _CONTROL_FLOW):
        graph = graph.outer_graph
    function = graph.name if isinstance(graph, FuncGraph) else ""
    name = re.sub(r"[^A-Za-z0-9_./-]", "_", "/".join(part for part in (function, scope, "batch") if part))
    taken = _region_names.setdefault(graph, set())
    unique, number = name, 0
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    taken.add(unique)
    return unique
