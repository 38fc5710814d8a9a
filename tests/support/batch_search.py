"""Runs the search for regions on a SavedModel, and its result in plain TensorFlow without the op library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.python.framework import importer

from batching.plan import LevelPlan, find
from batching.search import Batched, search
from partition.batched import ModelValues, model_graph, prepare
from partition.saved_model import FlatModel, read_saved_model


def functional_model(directory: Path) -> FlatModel:
    """Return the model with calls inlined, While and If kept."""
    found: list[FlatModel] = []

    def keep(model: FlatModel) -> GraphDef:
        found.append(model)
        return model.graph.to_graph_def()

    read_saved_model(directory, rewrite=keep)
    return found[0]


def find_in(directory: Path, **options: Any) -> LevelPlan:
    return find(model_graph(functional_model(directory)), **options)


def search_in(directory: Path, **options: Any) -> tuple[FlatModel, Batched]:
    model = functional_model(directory)
    return model, search(model_graph(model), ModelValues(model).read, **options)


def pairs_as_identities(graph_def: GraphDef) -> GraphDef:
    """Return a graph that plain TensorFlow knows: each op of a pair is an IdentityN, the token a constant of it."""
    result = GraphDef()
    result.CopyFrom(graph_def)
    for nodes in (result.node, *(function.node_def for function in result.library.function)):
        for node in nodes:
            if node.op == "TesseraUnbatch":
                token = node.input[len(node.attr["T"].list.type)]
                node.input.remove(token)
                node.input.append(f"^{token.partition(':')[0]}")
            if node.op in ("TesseraBatch", "TesseraUnbatch"):
                types = list(node.attr["T"].list.type)
                output = "batched" if node.op == "TesseraBatch" else "unbatched"
                node.op = "IdentityN"
                node.attr.clear()
                node.attr["T"].list.type.extend(types)
                _rename_output(nodes, node.name, output)
    for function in result.library.function:
        for key, text in function.ret.items():
            function.ret[key] = text.replace(":unbatched:", ":output:").replace(":batched:", ":output:")
    return result


def _rename_output(nodes: Any, name: str, output: str) -> None:
    for node in nodes:
        for position, text in enumerate(node.input):
            if text.startswith(f"{name}:{output}:"):
                node.input[position] = text.replace(f":{output}:", ":output:")


def answers(model: FlatModel, graph_def: GraphDef, signature: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the outputs of a signature in a graph with the model's weights; no optimizer changes the graph."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    definition = model.meta.signature_def[signature]
    with tf.Graph().as_default() as graph:
        importer.import_graph_def(pairs_as_identities(graph_def), name="")
        with tf.compat.v1.Session(graph=graph, config=config) as session:
            prepare(model, session)
            feeds = {definition.inputs[key].name: value for key, value in inputs.items()}
            found = session.run({key: info.name for key, info in definition.outputs.items()}, feeds)
    return {key: np.asarray(value) for key, value in found.items()}


def check_pairs(graph_def: GraphDef) -> int:
    """Check what the loader of graphs expects of each pair, and return how many there are.

    What comes after a TesseraBatch is needed by its TesseraUnbatch, uses rows of this batch only, and nothing leads
    past the TesseraUnbatch.
    """
    pairs = 0
    for nodes in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        sources = {node.name: [_source(text) for text in node.input] for node in nodes}
        ops = {node.name: node.op for node in nodes}
        for batch in [name for name, op in ops.items() if op == "TesseraBatch"]:
            pairs += 1
            ends = [name for name, op in ops.items() if op == "TesseraUnbatch" and sources[name][-1] == batch]
            assert len(ends) == 1
            inside, stack = set(), [batch]
            while stack:
                before = stack.pop()
                after = [name for name in sources if before in sources[name] and ops[name] != "TesseraUnbatch"]
                stack += [name for name in after if name not in inside]
                inside |= set(after)
            others = [name for name, op in ops.items() if op == "TesseraUnbatch" and name != ends[0]]
            assert not any(inside & set(sources[name]) for name in others), "a region ends twice"
            needed, stack = set(), [ends[0]]
            while stack:
                for before in sources.get(stack.pop(), []):
                    if before not in needed and before in ops:
                        needed.add(before)
                        stack.append(before)
            assert inside <= needed, "an op of the region that its end does not need"
            types = {ops[name] for name in inside}
            assert not types & {"TesseraBatch", "If", "While", "StatelessWhile", "TensorListSetItem"}
            entering = {name for member in inside for name in sources[member] if name in ops and name not in inside}
            assert all(ops[name] != "TesseraUnbatch" for name in entering), "reads what another region returned"
    return pairs


def _source(text: str) -> str:
    return "" if text.startswith("^") else text.partition(":")[0]
