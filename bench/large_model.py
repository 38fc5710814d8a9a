"""A model that takes long to load and nothing to run."""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

import tensorflow as tf

VARIABLES, VARIABLE_BYTES = 8, 1 << 27


class Large(tf.Module):
    """y = x + the first weight of each variable: 1 GiB of weights in 8 variables."""

    def __init__(self) -> None:
        super().__init__(name="large")
        shape = (VARIABLE_BYTES // 4 // 1024, 1024)
        random = tf.random.Generator.from_seed(7)
        self.weights = [tf.Variable(random.uniform(shape), name=f"weights_{i}") for i in range(VARIABLES)]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def serve(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return y [n] for x [n]."""
        return {"y": x + tf.add_n([tf.gather(one, 0)[0] for one in self.weights])}
