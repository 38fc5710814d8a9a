"""A region as a function of its own: to verify it and to measure it, on made-up rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import errors as tf_errors
from tensorflow.python.framework import importer

from batching.dims import Dim
from batching.insert import insert_in_graph
from batching.plan import LevelPlan
from batching.regions import Region
from batching.rules_linear import GATHER_OPS
from tessera.errors import FailedPreconditionError

Array = np.ndarray[Any, Any]
# Returns the value of a variable by the name of its op in the main graph; of more bytes than the limit its first rows.
Values = Callable[[str, int | None], Array]

_VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_UNKNOWN_SIZE = 8
_MAX_TABLE_BYTES = 64 << 20  # more of a table than the caches hold tells nothing new
_ORDINARY_LIMIT = 10
# Ids keep their value through these, from input 0 or from all inputs.
_KEEPS_FIRST = frozenset(
    ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StridedSlice", "Slice", "Transpose", "Unpack", "GatherV2")
)
_KEEPS_ALL = frozenset(("ConcatV2", "Pack", "SelectV2", "Select", "IdentityN", "Maximum", "Minimum", "Split", "SplitV"))


@dataclass(frozen=True)
class _Input:
    placeholder: str
    dtype: tf.DType
    dims: tuple[Dim, ...]


class Probe:
    """A region in a session. Close it, or use it as a context manager; used by one thread.

    The region runs as it was inserted: between the pair, on weights of the model.
    """

    def __init__(self, plan: LevelPlan, region: Region, values: Values) -> None:
        """Build the region's graph and read the weights that it needs.

        Raises:
            FailedPreconditionError: TensorFlow cannot run it.
        """
        builder = _Builder(plan, region)
        self._inputs, self._outputs = builder.inputs, builder.outputs
        self._graph = tf.Graph()
        # On the thread that calls, as the native core runs a graph: no hand-over that would be measured too.
        options = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        with self._graph.as_default():
            try:
                importer.import_graph_def(builder.graph_def, name="")
                tables, assigns, feeds = _assignments(self._graph, builder.variables, values)
                self._session = tf.compat.v1.Session(graph=self._graph, config=options)
                self._session.run(assigns, feeds)
            except (ValueError, tf_errors.OpError) as error:
                raise FailedPreconditionError(f"TensorFlow cannot run the region alone: {error}") from error
        self._limits = _id_limits(self._graph, tables)
        names = [entry.placeholder for entry in self._inputs]
        self._run = self._callable(names, self._outputs)
        idle = [f"{names[i % len(names)].partition(':')[0]}/idle:0" for i in range(len(self._outputs))]
        self._idle = self._callable(names, idle)

    def _callable(self, feeds: list[str], fetches: list[str]) -> Callable[..., list[Array]]:
        made: Callable[..., list[Array]] = self._session.make_callable(
            [self._graph.get_tensor_by_name(name) for name in fetches],
            [self._graph.get_tensor_by_name(name) for name in feeds],
        )
        return made

    def rows(self, count: int, seed: int) -> list[Array]:
        """Return made-up inputs with `count` rows; ids are in the range of the tables that they index."""
        random = np.random.default_rng(seed)
        return [self._sample(random, entry, count) for entry in self._inputs]

    def _sample(self, random: np.random.Generator, entry: _Input, count: int) -> Array:
        sizes = [size.factor * _UNKNOWN_SIZE ** len(size.symbols) for size in entry.dims[1:]]
        shape = (count, *sizes)
        dtype = np.dtype(entry.dtype.as_numpy_dtype)
        if entry.dtype == tf.bool:
            return random.integers(0, 2, shape).astype(dtype)
        if entry.dtype.is_integer:
            limit = self._limits.get(entry.placeholder, _ORDINARY_LIMIT)
            return random.integers(0, limit, shape).astype(dtype)
        values = random.standard_normal(shape)
        if entry.dtype.is_complex:
            values = values + 1j * random.standard_normal(shape)
        return np.asarray(values).astype(dtype)

    def run(self, inputs: list[Array]) -> list[Array]:
        """Return the region's outputs.

        Raises:
            FailedPreconditionError: TensorFlow refuses these inputs; their trailing dimensions are guesses.
        """
        try:
            return [np.asarray(value) for value in self._run(*inputs)]
        except tf_errors.OpError as error:
            raise FailedPreconditionError(f"does not run on made-up rows: {error.message}") from error

    def idle(self, inputs: list[Array]) -> None:
        """Do all that `run` does but the region's own work: to measure what a call costs."""
        self._idle(*inputs)

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


class _Builder:
    """Copies a region and what it needs of its own and outer levels into one graph."""

    def __init__(self, plan: LevelPlan, region: Region) -> None:
        self.graph_def = GraphDef()
        self.inputs: list[_Input] = []
        self.outputs: list[str] = []
        self.variables: dict[str, str] = {}  # name here → name of the variable's op in the main graph
        self._names: dict[tuple[int, str], str] = {}
        self._waiting: list[tuple[LevelPlan, str]] = []
        self._nodes: dict[int, dict[str, NodeDef]] = {}
        graph_def = plan.analysis.level.graph.as_graph_def()
        insert_in_graph(graph_def, plan.analysis, region, "probe", {})
        self._nodes[id(plan)] = {node.name: node for node in graph_def.node}
        unbatch = next(node for node in graph_def.node if node.op == "TesseraUnbatch")
        self._add_inputs(plan, region)
        outputs = [self._resolve(plan, text) for text in list(unbatch.input)[:-1]]
        self.outputs = [name if ":" in name else f"{name}:0" for name in outputs]
        while self._waiting:
            self._copy(*self._waiting.pop())

    def _add_inputs(self, plan: LevelPlan, region: Region) -> None:
        for position, name in enumerate(region.border.inputs):
            tensor = plan.analysis.level.graph.get_tensor_by_name(name)
            dims = plan.analysis.facts[name].dims
            assert dims is not None
            node = self.graph_def.node.add(name=f"input_{position}", op="Placeholder")
            node.attr["dtype"].type = tensor.dtype.base_dtype.as_datatype_enum
            shape = [None if size.symbols else size.factor for size in dims]
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
            idle = self.graph_def.node.add(name=f"input_{position}/idle", op="Identity", input=[node.name])
            idle.attr["T"].type = node.attr["dtype"].type
            self.inputs.append(_Input(f"{node.name}:0", tensor.dtype.base_dtype, dims))

    def _resolve(self, plan: LevelPlan, text: str) -> str:
        """Return an edge as it is called here; what produces it will be copied."""
        name, _, output = text.partition(":")
        while plan.caller is not None and f"{name}:0" in plan.analysis.level.arguments:
            assert plan.loop is not None
            given = plan.loop.inputs[plan.analysis.level.arguments.index(f"{name}:0")].name
            plan, (name, _, output) = plan.caller, given.removesuffix(":0").partition(":")
        if self._node(plan, name).op == "TesseraBatch":
            return f"input_{int(output or 0)}"
        key = (id(plan), name)
        if key not in self._names:
            self._names[key] = f"{len(self._names)}/{name}"
            self._waiting.append((plan, name))
        return self._names[key] + (f":{output}" if output and output != "0" else "")

    def _copy(self, plan: LevelPlan, name: str) -> None:
        copy = NodeDef()
        copy.CopyFrom(self._node(plan, name))
        copy.name = self._names[id(plan), name]
        copy.device = ""
        copy.attr.pop("_class", None)
        inputs = [self._resolve(plan, edge) for edge in copy.input if not edge.startswith("^")]
        del copy.input[:]
        copy.input.extend(inputs)
        if copy.op in _VARIABLES:
            self.variables[copy.name] = name
            copy.attr["shared_name"].s = copy.name.encode()
            copy.attr["container"].s = b""
            if copy.op == "VarHandleOp":  # a table may be cut short
                copy.attr["shape"].shape.Clear()
                copy.attr["shape"].shape.unknown_rank = True
        self.graph_def.node.append(copy)

    def _node(self, plan: LevelPlan, name: str) -> NodeDef:
        if id(plan) not in self._nodes:
            self._nodes[id(plan)] = {node.name: node for node in plan.analysis.level.graph.as_graph_def().node}
        return self._nodes[id(plan)][name]


def _assignments(
    graph: tf.Graph, variables: Mapping[str, str], values: Values
) -> tuple[dict[str, int], list[tf.Operation], dict[tf.Tensor, Array]]:
    """Return variable → its rows, for those with any; and what sets all variables, with what to feed."""
    rows, assigns, feeds = {}, [], {}
    for name, variable in variables.items():
        op = graph.get_operation_by_name(name)
        value = values(variable, _MAX_TABLE_BYTES if _only_gathered(op.outputs[0]) else None)
        if value.ndim:
            rows[name] = value.shape[0]
        given = tf.compat.v1.placeholder(tf.as_dtype(op.get_attr("dtype")), value.shape)
        if op.type == "VarHandleOp":
            assigns.append(tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=given))
        else:
            assigns.append(tf.raw_ops.Assign(ref=op.outputs[0], value=given, validate_shape=False).op)
        feeds[given] = value
    return rows, assigns, feeds


def _only_gathered(tensor: tf.Tensor) -> bool:
    """Whether a variable is a table: rows that nobody asks for need not be there."""
    return all(
        _only_gathered(user.outputs[0])
        if user.type in ("Identity", "ReadVariableOp", "Cast")
        else user.type in GATHER_OPS and user.inputs[0] is tensor
        for user in tensor.consumers()
    )


def _id_limits(graph: tf.Graph, rows: Mapping[str, int]) -> dict[str, int]:
    """Return placeholder → how many rows the smallest table has that its values index."""
    limits: dict[str, int] = {}
    for op in graph.get_operations():
        if op.type not in GATHER_OPS:
            continue
        table = op.inputs[0]
        while table.op.type in ("Identity", "ReadVariableOp", "Cast"):
            table = table.op.inputs[0]
        known = table.shape.as_list()[0] if table.shape.rank else None
        limit = int(rows.get(table.op.name, known) or 0)
        stack = [op.inputs[1]] if limit else []
        while stack:
            tensor = stack.pop()
            if tensor.op.type == "Placeholder":
                limits[tensor.name] = min(limits.get(tensor.name, limit), limit)
            elif tensor.op.type in _KEEPS_ALL:
                stack += list(tensor.op.inputs)
            elif tensor.op.type in _KEEPS_FIRST:
                stack.append(tensor.op.inputs[0])
    return limits
