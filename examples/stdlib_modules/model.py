"""The demo's model: hashed n-grams of a line of code, an embedding bag over a very large table, a linear layer.

It is an ordinary `tf.Module`; nothing in it knows that it will be served in parts.
"""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from examples.stdlib_modules.parameters import Parameters

_WORD_NGRAMS = (1, 2, 3)
_CHARACTER_NGRAMS = (3, 4, 5)
_EXTRACTION_BATCH = 4096


@dataclass(frozen=True)
class Bags:
    """The hashed n-grams of many lines, one after the other.

    Attributes:
        ids: int64 [n-grams], rows of the table.
        starts: int64 [lines + 1]: the ids of line i are `ids[starts[i]:starts[i + 1]]`.
    """

    ids: np.ndarray
    starts: np.ndarray


class ModuleClassifier(tf.Module):
    """Tells from a line of code which module of the standard library it is from."""

    def __init__(self, modules: Sequence[str], parameters: Parameters) -> None:
        super().__init__(name="stdlib_modules")
        self._rows, self._top_k = parameters.rows, min(parameters.top_k, len(modules))
        self._modules = list(modules)
        table_seed, dense_seed = (parameters.seed, 1), (parameters.seed, 2)
        shape = (parameters.rows, parameters.dim)
        self.ngrams = tf.Variable(tf.random.stateless_uniform(shape, table_seed, -0.01, 0.01), name="ngrams")
        self.kernel = tf.Variable(
            tf.random.stateless_normal((parameters.dim, len(modules)), dense_seed, stddev=0.2), name="kernel"
        )
        self.bias = tf.Variable(tf.zeros(len(modules)), name="bias")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="line")])
    def hashed_ngrams(self, line: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the table rows of all n-grams of `line` [batch]: ids int64 [n-grams], line_of int64 [n-grams]."""
        spaced = tf.strings.regex_replace(line, r"([A-Za-z0-9_]+|[^\sA-Za-z0-9_])", r" \1 ")
        words = tf.strings.ngrams(tf.strings.split(spaced), _WORD_NGRAMS, separator=" ")
        padded = tf.strings.join(["^", line, "$"])
        characters = tf.strings.ngrams(tf.strings.bytes_split(padded), _CHARACTER_NGRAMS, separator="")
        # The mark keeps the word `self` and the characters `self` apart.
        texts = tf.concat([tf.strings.join(["word ", words.flat_values]), characters.flat_values], axis=0)
        line_of = tf.concat([words.value_rowids(), characters.value_rowids()], axis=0)
        return tf.strings.to_hash_bucket_fast(texts, self._rows), line_of

    def logits(self, rows: tf.Tensor, line_of: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
        """Return float32 [lines, modules] from the n-grams' rows [n-grams, dim] and the line of each [n-grams]."""
        counts = tf.math.unsorted_segment_sum(tf.ones_like(line_of, tf.float32), line_of, lines)
        bag = tf.math.unsorted_segment_sum(rows, line_of, lines) / tf.sqrt(tf.maximum(counts, 1.0))[:, tf.newaxis]
        return tf.linalg.matmul(bag, self.kernel) + self.bias

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="line")])
    def classify(self, line: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return for `line` [batch] the likeliest modules, best first.

        Returns:
            module: string [batch, top_k]; score: float32 [batch, top_k], the probability of each.
        """
        ids, line_of = self.hashed_ngrams(line)
        probabilities = tf.nn.softmax(self.logits(tf.gather(self.ngrams, ids), line_of, tf.shape(line)[0]))
        score, position = tf.math.top_k(probabilities, self._top_k)
        return {"module": tf.gather(tf.constant(self._modules), position), "score": score}

    def bags(self, lines: Sequence[str]) -> Bags:
        """Return the hashed n-grams of `lines`, made by the same graph that serves."""
        ids, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(lines), _EXTRACTION_BATCH):
            batch = lines[start : start + _EXTRACTION_BATCH]
            batch_ids, line_of = (part.numpy() for part in self.hashed_ngrams(tf.constant(batch)))
            ids.append(batch_ids[np.argsort(line_of, kind="stable")])
            counts.append(np.bincount(line_of, minlength=len(batch)))
        return Bags(np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(counts))]))

    def save(self, folder: str) -> None:
        """Write a stock SavedModel with the one signature `serving_default`."""
        tf.saved_model.save(self, folder, signatures={"serving_default": self.classify})


class Trainer:
    """Adagrad that touches only the rows that a batch uses; a pass over a whole table would take 500 times as long."""

    def __init__(self, model: ModuleClassifier, parameters: Parameters) -> None:
        self._model = model
        self._rate = parameters.learning_rate
        self._weights = [model.ngrams, model.kernel, model.bias]
        self._sums = [tf.Variable(tf.fill(w.shape, 0.01), trainable=False) for w in self._weights]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int32),
        ]
    )
    def step(self, rows: tf.Tensor, which: tf.Tensor, line_of: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Take one step and return the mean loss.

        Args:
            rows: int64 [distinct], the rows that the batch uses, each once.
            which: int32 [n-grams], positions in `rows`.
            line_of: int32 [n-grams], the line of each n-gram, 0 to batch - 1.
            labels: int32 [batch].
        """
        table, kernel, bias = self._weights
        used = tf.gather(table, rows)
        with tf.GradientTape() as tape:
            tape.watch(used)
            logits = self._model.logits(tf.gather(used, which), line_of, tf.size(labels))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        used_gradient, *dense_gradients = tape.gradient(loss, [used, kernel, bias])
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=table.handle,
            accum=self._sums[0].handle,
            lr=self._rate,
            epsilon=1e-7,
            grad=tf.convert_to_tensor(used_gradient),
            indices=rows,
        )
        for weight, total, gradient in zip((kernel, bias), self._sums[1:], dense_gradients, strict=True):
            tf.raw_ops.ResourceApplyAdagradV2(
                var=weight.handle, accum=total.handle, lr=self._rate, epsilon=1e-7, grad=gradient
            )
        return loss


def batches(
    bags: Bags, labels: np.ndarray, batch_lines: int, order: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the arguments of `Trainer.step` for one pass over the lines, in an order drawn from `order`."""
    lengths = np.diff(bags.starts)
    permutation = order.permutation(len(labels))
    for start in range(0, len(permutation), batch_lines):
        chosen = permutation[start : start + batch_lines]
        line_of = np.repeat(np.arange(len(chosen), dtype=np.int32), lengths[chosen])
        # Position of every n-gram in bags.ids: its line's start plus its number within the line.
        first = np.cumsum(lengths[chosen]) - lengths[chosen]
        positions = np.arange(len(line_of)) - first[line_of] + bags.starts[chosen][line_of]
        rows, which = np.unique(bags.ids[positions], return_inverse=True)
        yield rows, which.astype(np.int32), line_of, labels[chosen]
