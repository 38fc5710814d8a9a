"""The served model: JPEG files in, the five likeliest class names out. A `tf.Module` around a network of Keras."""

# mypy: disable-error-code="misc, untyped-decorator"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

TOP_K = 5
USER_DIM = 64
# A like adds this to the class's logit: about what a network gives to a class that it is sure of.
_LIKE = 12.0
# The middle of a picture that the network was trained on; the original preprocessing cuts there too.
_CENTRE = 0.875


def inception_v3(classes: int, image_size: int, weights: Path | None) -> keras.Model:
    """Return Keras's Inception-v3 with logits as outputs; without a file of weights they are random."""
    return keras.applications.InceptionV3(
        weights=None if weights is None else str(weights),
        input_shape=(image_size, image_size, 3),
        classes=classes,
        classifier_activation=None,
    )


def tiny(classes: int, image_size: int) -> keras.Model:
    """Return a toy with the inputs and outputs of Inception-v3: three convolutions and a dense layer."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((image_size, image_size, 3)),
            layers.Conv2D(32, 5, strides=4, activation="relu"),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            layers.Conv2D(128, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(classes),
        ]
    )


class Users(tf.Module):
    """What each user's photographs have been of: a row of a large table for each, and a vector for each class.

    Row 0 is for a user of whom nothing is known; it changes nothing.
    """

    def __init__(self, users: int, classes: int, likes: Mapping[int, int], seed: int) -> None:
        super().__init__(name="users")
        random = np.random.default_rng(seed)
        rows = random.standard_normal((users, USER_DIM), np.float32) * np.float32(0.01)
        vectors = random.standard_normal((USER_DIM, classes), np.float32)
        vectors /= np.linalg.norm(vectors, axis=0)
        for user, liked in likes.items():
            rows[user] = _LIKE * vectors[:, liked]
        rows[0] = 0
        self.table = tf.Variable(rows, name="users")
        self.vectors = tf.Variable(vectors, name="class_vectors")

    def logits(self, user: tf.Tensor) -> tf.Tensor:
        """Return what is added for `user` [batch]: float32 [batch, classes]."""
        return tf.matmul(tf.gather(self.table, user), self.vectors)


class Classifier(tf.Module):
    """Names what is in a picture; with `users`, what is in the picture of a user."""

    def __init__(self, network: keras.Model, labels: Sequence[str], users: Users | None) -> None:
        super().__init__(name="classifier")
        # Keras would have its variables saved twice; hidden in a function, only these here are.
        self._network = functools.partial(network, training=False)
        self._weights = [variable.value for variable in network.variables]
        self._image_size = network.input_shape[1]
        self._labels = list(labels)
        self._users = users

    def signature(self) -> tf.types.experimental.ConcreteFunction:
        """Return the traced signature: `images` (and `user`) in, `classes` and `scores` out."""
        images = tf.TensorSpec([None], tf.string, name="images")
        if self._users is None:
            return tf.function(self._classify).get_concrete_function(images)
        return tf.function(self._classify_for).get_concrete_function(images, tf.TensorSpec([None], tf.int64, "user"))

    def _classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._named(self._logits(images))

    def _classify_for(self, images: tf.Tensor, user: tf.Tensor) -> dict[str, tf.Tensor]:
        assert self._users is not None
        return self._named(self._logits(images) + self._users.logits(user))

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        pixels = tf.map_fn(self._decoded, images, fn_output_signature=tf.float32)
        size = self._image_size
        return self._network(tf.ensure_shape(pixels, [None, size, size, 3]))

    def _decoded(self, jpeg: tf.Tensor) -> tf.Tensor:
        """Return a file's pixels as the network wants them: float32 [size, size, 3] in -1 … 1."""
        pixels = tf.image.convert_image_dtype(tf.io.decode_jpeg(jpeg, channels=3), tf.float32)
        return tf.image.resize(tf.image.central_crop(pixels, _CENTRE), [self._image_size] * 2) * 2.0 - 1.0

    def _named(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        scores, numbers = tf.math.top_k(tf.nn.softmax(logits), TOP_K)
        return {"classes": tf.gather(tf.constant(self._labels), numbers), "scores": scores}
