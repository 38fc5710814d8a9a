"""Draws a cat and writes it as a JPEG, for readers who have no cat at hand."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from admin.quiet import quiet_tensorflow

_SIZE = 400
_WALL, _FUR, _EAR, _EYE, _BLACK = (176, 196, 222), (150, 140, 130), (215, 160, 160), (120, 170, 60), (25, 25, 25)


def cat() -> np.ndarray:
    """Return the pixels of a cat's head: uint8 [400, 400, 3]."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)
    across = np.abs(x - _SIZE / 2)  # it is as symmetrical as a cat can be
    picture = np.full((_SIZE, _SIZE, 3), _WALL, np.uint8)

    def ellipse(from_middle: float, top: float, width: float, height: float) -> np.ndarray:
        inside: np.ndarray = ((across - from_middle) / width) ** 2 + ((y - top) / height) ** 2 < 1
        return inside

    def ear(inset: float) -> np.ndarray:
        high = (y - 50 - inset) / 130
        inside: np.ndarray = (high > 0) & (high < 1) & (np.abs(across - 105 + 15 * high) < (55 - inset) * high)
        return inside

    picture[ear(0)], picture[ear(20)] = _FUR, _EAR
    head = ellipse(0, 230, 150, 125)
    picture[head] = _FUR
    picture[head & (y < 190) & (across % 44 < 12) & (across < 100)] = _BLACK  # a tabby
    picture[ellipse(62, 205, 32, 24)], picture[ellipse(62, 205, 8, 22)] = _EYE, _BLACK
    picture[ellipse(0, 262, 16, 11)] = _EAR
    for slope in (-0.18, 0.0, 0.18):
        picture[(across > 40) & (across < 190) & (np.abs(y - 275 - slope * across) < 1.6)] = _BLACK
    return picture


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog="python -m examples.inception.picture", description=__doc__)
    made.add_argument("output", type=Path, metavar="FILE", help="file to write, such as cat.jpg")
    return made


def main() -> None:
    """Write the picture."""
    output = parser().parse_args().output
    quiet_tensorflow()
    import tensorflow as tf

    output.write_bytes(tf.io.encode_jpeg(cat(), quality=92).numpy())
    print(output)


if __name__ == "__main__":
    main()
