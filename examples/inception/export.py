"""Writes Inception-v3 as a SavedModel that takes JPEG files and answers with class names."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from admin.quiet import quiet_tensorflow
from examples.inception.labels import CLASSES, made_up_labels, read_labels
from tessera.errors import InvalidArgumentError, TesseraError

_SMALLEST_IMAGE = 75  # of Inception-v3


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m examples.inception.export", description=__doc__)
    made.add_argument("output", type=Path, metavar="DIR", help="directory to write, such as models/inception/1")
    made.add_argument(
        "--network",
        choices=("inception_v3", "tiny"),
        default="inception_v3",
        help="tiny: a toy with the same inputs and outputs, for trying the commands (default: %(default)s)",
    )
    made.add_argument(
        "--weights", type=Path, metavar="FILE", help="Keras weights of Inception-v3 (default: random ones)"
    )
    made.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="class names, one a line, or imagenet_class_index.json (default: made-up ones)",
    )
    made.add_argument(
        "--image-size", type=int, default=299, metavar="PIXELS", help="what the network sees (default: %(default)s)"
    )
    made.add_argument(
        "--users", type=int, default=0, metavar="N", help="add a table with a row for each of N users (default: none)"
    )
    made.add_argument(
        "--like",
        action="append",
        default=[],
        metavar="USER=CLASS",
        help="with --users: this user likes this class (its number); may be repeated",
    )
    made.add_argument("--seed", type=int, default=1, help="of everything that is random (default: %(default)s)")
    return made


def check(options: argparse.Namespace) -> dict[int, int]:
    """Return the likes.

    Raises:
        InvalidArgumentError: an option is out of its range, or makes no sense beside another.
    """
    if options.output.exists():
        raise InvalidArgumentError(f"{options.output}: exists; expected a new directory, such as the next version's")
    if options.image_size < _SMALLEST_IMAGE:
        raise InvalidArgumentError(f"--image-size: got {options.image_size}, expected at least {_SMALLEST_IMAGE}")
    if options.users < 0:
        raise InvalidArgumentError(f"--users: got {options.users}, expected at least 0")
    if options.network == "tiny" and options.weights:
        raise InvalidArgumentError("--weights: got --network tiny, expected inception_v3")
    for flag, path in (("--weights", options.weights), ("--labels", options.labels)):
        if path is not None and not path.is_file():
            raise InvalidArgumentError(f"{flag} {path}: no such file")
    likes: dict[int, int] = {}
    for text in options.like:
        user, _, liked = text.partition("=")
        if not (user.isdecimal() and liked.isdecimal() and 0 < int(user) < options.users and int(liked) < CLASSES):
            raise InvalidArgumentError(
                f"--like: got {text}, expected USER=CLASS with a user from 1 to --users - 1 and a class below {CLASSES}"
            )
        likes[int(user)] = int(liked)
    return likes


def export(options: argparse.Namespace, likes: dict[int, int]) -> None:
    """Build the model and save it."""
    quiet_tensorflow()
    import keras
    import tensorflow as tf

    from examples.inception import model

    labels = made_up_labels() if options.labels is None else read_labels(options.labels)
    keras.utils.set_random_seed(options.seed)
    if options.network == "tiny":
        network = model.tiny(CLASSES, options.image_size)
    else:
        network = model.inception_v3(CLASSES, options.image_size, options.weights)
    users = model.Users(options.users, CLASSES, likes, options.seed) if options.users else None
    classifier = model.Classifier(network, labels, users)
    tf.saved_model.save(classifier, str(options.output), signatures=classifier.signature())
    weights = sum(variable.shape.num_elements() for variable in classifier.variables)
    print(f"{options.output}: {weights:,} weights, {options.image_size} × {options.image_size} pixels")


def main() -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args()
    try:
        export(options, check(options))
    except TesseraError as error:
        print(f"export: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
