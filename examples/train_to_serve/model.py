"""The model: which films does a user like? Two tables, and a dot product of their rows.

Nothing in it knows how many machines it is trained on or served from.
"""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

GENRES = 8


def examples(users: int, films: int, batch: int) -> Any:
    """Return an endless dataset of (user, a film that he liked, a film that he did not), each int64 [batch].

    In this little world user u likes the films of one genre, and film f is of genre f % 8: the model is told neither.
    """

    def some(_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def numbers(below: int) -> tf.Tensor:
            return tf.random.uniform([batch], 0, below, tf.int64)

        user = numbers(users)
        liked = numbers(films // GENRES) * GENRES + user % GENRES
        other = (liked + 1 + numbers(GENRES - 1)) % films
        return user, liked, other

    return tf.data.Dataset.counter().map(some).prefetch(2)


class Films(tf.Module):
    """Rows for users and films; the score of a film for a user is the dot product of their rows."""

    def __init__(self, users: int, films: int, dim: int) -> None:
        super().__init__(name="films")
        self.users = tf.Variable(_random_rows(users, dim, 1), shape=(users, dim), dtype=tf.float32, name="users")
        self.films = tf.Variable(_random_rows(films, dim, 2), shape=(films, dim), dtype=tf.float32, name="films")

    def scores(self, user: tf.Tensor, films: tf.Tensor) -> tf.Tensor:
        """Return float32 [batch, films] for `user` [batch] and `films` [batch, films]."""
        rows = tf.nn.embedding_lookup(self.users, user)
        return tf.einsum("bd,bfd->bf", rows, tf.nn.embedding_lookup(self.films, films))

    def step(self, batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor], rate: float) -> tf.Tensor:
        """Learn from one batch; return its mean loss. Only the rows that the batch names are read and changed."""
        user, liked, other = batch
        tables = [*parts(self.users), *parts(self.films)]
        with tf.GradientTape() as tape:
            scores = self.scores(user, tf.stack([liked, other], axis=1))
            losses = tf.nn.softplus(scores[:, 1] - scores[:, 0])
            loss = tf.reduce_sum(losses)
        for part, gradient in zip(tables, tape.gradient(loss, tables), strict=True):
            part.scatter_sub(tf.IndexedSlices(rate * gradient.values, gradient.indices))
        return tf.reduce_mean(losses)

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.int64, "user"), tf.TensorSpec([None, None], tf.int64, "films")]
    )
    def rank(self, user: tf.Tensor, films: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the films, the likeliest first, with their scores: what is served."""
        scores = self.scores(user, films)
        order = tf.argsort(scores, axis=1, direction="DESCENDING")
        return {"films": tf.gather(films, order, batch_dims=1), "scores": tf.gather(scores, order, batch_dims=1)}


def _random_rows(rows: int, dim: int, seed: int) -> Callable[..., tf.Tensor]:
    def values(partition_shape: Any = (rows, dim), partition_offset: Any = (0, 0)) -> tf.Tensor:
        """A parameter server makes its own part; nobody ever holds the whole table."""
        return 0.1 * tf.random.stateless_normal(tf.TensorShape(partition_shape), (seed, int(partition_offset[0])))

    return values


def parts(variable: Any) -> list[tf.Variable]:
    """Return the parts of a sharded variable; without a strategy it is one variable."""
    return list(getattr(variable, "variables", [variable]))
