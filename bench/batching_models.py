"""The models whose batching is measured: each unbatched, with Tessera's pair, and with TensorFlow's batch function."""

# mypy: disable-error-code="misc, untyped-decorator, no-any-return"
# (TensorFlow has no type stubs, so its classes and decorators are untyped.)

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_library

import batching

Variant = Literal["none", "tessera", "function", "whole", "pad", "cell"]
"""Where batches are made: nowhere; Tessera's pair around the accelerator's part (for sequences: the cell in the loop);
TensorFlow's batch function around the same part; around the whole request, as session batching does it; around whole
sequences, padded to the longest allowed with a mask; around the cell in the loop."""

MAX_STEPS = 50
IMAGE_HEIGHT, IMAGE_WIDTH, INCEPTION_SIZE = 375, 500, 299
SIMULATED_BATCH_US, SIMULATED_ROW_US, DEAR_ROW_US, SLOW_BATCH_US = 5_000, 100, 200, 1_000_000
_CLASSES, _TOP = 1000, 5
_SEED = 11

Layer = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Workload:
    """A model and what is sent to it.

    Attributes:
        make: Makes the module whose `serve` is the signature.
        variants: Those that make sense for it.
        inputs: Inputs of `count` requests, one row each, the same every time.
        poisoned: The inputs of one request that must fail; None: there is no such thing.
    """

    name: str
    make: Callable[[Variant], tf.Module]
    variants: tuple[Variant, ...]
    inputs: Callable[[int], list[dict[str, np.ndarray]]]
    poisoned: Callable[[], dict[str, np.ndarray]] | None = None


def around(
    region: Layer, variant: Variant, *, name: str, wrapped: tuple[Variant, ...] = ("tessera", "function")
) -> Layer:
    """Return `region`, batched as `variant` does it if that is one of `wrapped`.

    The batch function's settings are overwritten in the saved graph (`bench.batching_variants`).
    """
    if variant == "tessera" and variant in wrapped:
        return batching.batched(region, name=name)
    if variant in wrapped:
        return tf.nondifferentiable_batch_function(
            num_batch_threads=1, max_batch_size=64, batch_timeout_micros=0, max_enqueued_batches=1000, autograph=False
        )(region)
    return region


class Mlp(tf.Module):
    """Layers of `width` × `width`."""

    def __init__(self, variant: Variant, *, width: int, layers: int = 3, checked: bool = False) -> None:
        super().__init__(name="mlp")
        random = tf.random.Generator.from_seed(_SEED)
        shape = (width, width)
        self.kernels = [
            tf.Variable(random.normal(shape, stddev=(2 / width) ** 0.5), name=f"kernel_{i}") for i in range(layers)
        ]
        self.biases = [tf.Variable(random.uniform((width,), -0.1, 0.1), name=f"bias_{i}") for i in range(layers)]
        self._checked = checked
        region = around(self.region, variant, name="mlp")
        spec = tf.TensorSpec([None, width], tf.float32, name="x")
        self.serve = tf.function(lambda x: {"y": region(x)}, input_signature=[spec], autograph=False)

    def region(self, x: tf.Tensor) -> tf.Tensor:
        """Return y [n, width] for x [n, width]; a NaN is an error if the model checks for it."""
        if self._checked:
            x = tf.debugging.check_numerics(x, "x")
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            x = tf.nn.relu(tf.matmul(x, kernel) + bias)
        return x


class Lstm(tf.Module):
    """An LSTM of `units` over sequences of as many features, then a layer of 32."""

    def __init__(self, variant: Variant, *, units: int) -> None:
        super().__init__(name="lstm")
        random = tf.random.Generator.from_seed(_SEED)
        self.units = units
        self.kernel = tf.Variable(random.normal((2 * units, 4 * units), stddev=units**-0.5), name="kernel")
        self.bias = tf.Variable(random.uniform((4 * units,), -0.1, 0.1), name="bias")
        self.head = tf.Variable(random.normal((units, 32), stddev=units**-0.5), name="head")
        self.step = around(self.cell, variant, name="cell", wrapped=("tessera", "cell"))
        padded = around(self.padded, variant, name="sequence", wrapped=("pad",))

        def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
            rows, steps = tf.shape(x)[0], tf.shape(x)[1]
            if variant != "pad":
                return {"y": tf.matmul(self.loop(x, steps), self.head)}
            full = tf.pad(x, [[0, 0], [0, MAX_STEPS - steps], [0, 0]])
            return {"y": padded(tf.reshape(full, [-1, MAX_STEPS, units]), tf.fill([rows], steps))}

        spec = tf.TensorSpec([None, None, units], tf.float32, name="x")
        self.serve = tf.function(serve, input_signature=[spec], autograph=False)

    def cell(self, x: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> list[tf.Tensor]:
        """Return the next h and c [n, units] after the input x [n, units]."""
        gates = tf.matmul(tf.concat([x, h], axis=1), self.kernel) + self.bias
        i, f, g, o = tf.split(gates, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return [tf.sigmoid(o) * tf.tanh(c), c]

    def loop(self, x: tf.Tensor, steps: tf.Tensor | int, lengths: tf.Tensor | None = None) -> tf.Tensor:
        """Return the last h [n, units] of x [n, steps, units]; with `lengths` [n] each row's own last one."""

        def body(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, ...]:
            new = self.step(tf.reshape(x[:, t], [-1, self.units]), h, c)
            if lengths is not None:
                going_on = (t < lengths)[:, None]
                new = [tf.where(going_on, after, before) for after, before in zip(new, (h, c), strict=True)]
            for state in new:
                state.set_shape([None, self.units])
            return (t + 1, *new)

        zeros = tf.zeros([tf.shape(x)[0], self.units])
        state = tf.TensorShape([None, self.units])
        return tf.while_loop(
            lambda t, h, c: t < steps,
            body,
            (tf.constant(0), zeros, zeros),
            shape_invariants=(tf.TensorShape([]), state, state),
        )[1]

    def padded(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Return what `serve` does for x [n, MAX_STEPS, units] of which `lengths` [n] steps count."""
        return tf.matmul(self.loop(x, MAX_STEPS, lengths), self.head)


class Inception(tf.Module):
    """Inception v3 with random weights; JPEG decoding, resizing and top-5 are in the graph."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(name="inception")
        tf.keras.utils.set_random_seed(_SEED)
        net = tf.keras.applications.InceptionV3(weights=None, classifier_activation=None)
        # The variables themselves: a Keras model as an attribute is saved as a copy that the function does not use.
        self.weights = [variable.value for variable in net.variables]
        region = around(lambda images: net(images, training=False), variant, name="inception")
        whole = around(lambda images: self.request(images, region), variant, name="whole", wrapped=("whole",))

        def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": whole(image)}

        spec = tf.TensorSpec([None], tf.string, name="image")
        self.serve = tf.function(serve, input_signature=[spec], autograph=False)

    @staticmethod
    def request(images: tf.Tensor, region: Layer) -> tf.Tensor:
        """Return the 5 best scores [n, 5] of JPEG images [n]; `region` takes images [n, 299, 299, 3] in [-1, 1]."""

        def decode(image: tf.Tensor) -> tf.Tensor:
            pixels = tf.image.resize(tf.io.decode_jpeg(image, channels=3), [INCEPTION_SIZE, INCEPTION_SIZE])
            return pixels / 127.5 - 1.0

        spec = tf.TensorSpec([INCEPTION_SIZE, INCEPTION_SIZE, 3], tf.float32)
        return _best(region(tf.map_fn(decode, images, fn_output_signature=spec)))


class Simulated(tf.Module):
    """Some 0.4 ms of host work around an accelerator that is simulated (bench/cpp/batch/batch_simulated_op.cc)."""

    def __init__(self, variant: Variant, *, batch_us: int = SIMULATED_BATCH_US) -> None:
        super().__init__(name="simulated")

        def region(x: tf.Tensor) -> tf.Tensor:
            attributes = {"classes": _CLASSES, "batch_micros": batch_us, "row_micros": SIMULATED_ROW_US}
            return op_def_library.apply_op("SimulatedAccelerator", x=x, **attributes)

        accelerator = around(region, variant, name="accelerator")

        def request(image: tf.Tensor) -> tf.Tensor:
            small = tf.image.resize(image, [112, 112])
            return _best(accelerator(tf.image.per_image_standardization(small)))

        whole = around(request, variant, name="whole", wrapped=("whole",))
        spec = tf.TensorSpec([None, 256, 256, 3], tf.uint8, name="image")
        self.serve = tf.function(lambda image: {"scores": whole(image)}, input_signature=[spec], autograph=False)


class Accelerator(tf.Module):
    """Nothing but the simulated accelerator, with dear rows, so that not the CPU but the device is the limit."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(name="accelerator")

        def region(x: tf.Tensor) -> tf.Tensor:
            attributes = {"classes": 8, "batch_micros": SIMULATED_BATCH_US, "row_micros": DEAR_ROW_US}
            return op_def_library.apply_op("SimulatedAccelerator", x=x, **attributes)

        accelerator = around(region, variant, name="accelerator")
        spec = tf.TensorSpec([None, 8], tf.float32, name="x")
        self.serve = tf.function(lambda x: {"y": accelerator(x)}, input_signature=[spec], autograph=False)


def _best(logits: tf.Tensor) -> tf.Tensor:
    logits.set_shape([None, _CLASSES])
    return tf.math.top_k(tf.nn.softmax(logits), k=_TOP).values


def _vectors(count: int, *, width: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(_SEED)
    return [{"x": random.normal(size=(1, width)).astype(np.float32)} for _ in range(count)]


def _sequences(count: int, *, units: int) -> list[dict[str, np.ndarray]]:
    """Return sequences of 1 to 50 steps, every length about as often."""
    random = np.random.default_rng(_SEED)
    lengths = np.resize(random.permutation(MAX_STEPS) + 1, count)
    return [{"x": random.normal(size=(1, length, units)).astype(np.float32)} for length in lengths]


def _smooth_image(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = random.uniform(0, 255, (1, 12, 16, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, [height, width], method="bicubic").numpy()[0]
    return np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def _jpegs(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(_SEED)
    images = [_smooth_image(random, IMAGE_HEIGHT, IMAGE_WIDTH) for _ in range(count)]
    return [{"image": np.array([tf.io.encode_jpeg(image, quality=90).numpy()], object)} for image in images]


def _pictures(count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(_SEED)
    return [{"image": _smooth_image(random, 256, 256)[None]} for _ in range(count)]


def _lstm(units: int) -> Workload:
    return Workload(
        name=f"lstm{units}",
        make=functools.partial(Lstm, units=units),
        variants=("none", "tessera", "pad", "cell"),
        inputs=functools.partial(_sequences, units=units),
    )


def _mlp(width: int) -> Workload:
    return Workload(
        name=f"mlp{width}",
        make=functools.partial(Mlp, width=width),
        variants=("none", "tessera", "function"),
        inputs=functools.partial(_vectors, width=width),
    )


WORKLOADS = {
    workload.name: workload
    for workload in (
        _mlp(512),
        _mlp(2048),
        _lstm(512),
        _lstm(1024),
        Workload("inception", Inception, ("none", "tessera", "function", "whole"), _jpegs),
        Workload("sim", Simulated, ("none", "tessera", "function", "whole"), _pictures),
        Workload(
            "slow", functools.partial(Simulated, batch_us=SLOW_BATCH_US), ("none", "tessera", "function"), _pictures
        ),
        Workload("accelerator", Accelerator, ("none", "tessera", "function"), functools.partial(_vectors, width=8)),
        Workload(
            "checked",
            functools.partial(Mlp, width=512, checked=True),
            ("none", "tessera", "function"),
            functools.partial(_vectors, width=512),
            lambda: {"x": np.full((1, 512), np.nan, np.float32)},
        ),
    )
}
