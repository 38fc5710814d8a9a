"""Sizes of dimensions as products: a number times symbols, of which `n` is the number of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

ROWS_SYMBOL = "n"


@dataclass(frozen=True)
class Dim:
    """`factor` times the product of `symbols` (sorted, repeated for powers)."""

    factor: int
    symbols: tuple[str, ...] = ()

    def __mul__(self, other: Dim) -> Dim:
        """Return the product."""
        if self.factor == 0 or other.factor == 0:
            return Dim(0)
        return Dim(self.factor * other.factor, tuple(sorted(self.symbols + other.symbols)))

    def divided(self, other: Dim) -> Dim | None:
        """Return the quotient if it is a product too, else None."""
        if other.factor == 0 or self.factor % other.factor:
            return None
        left = Counter(self.symbols)
        left.subtract(other.symbols)
        if any(count < 0 for count in left.values()):
            return None
        return Dim(self.factor // other.factor, tuple(sorted(left.elements())))

    @property
    def known(self) -> bool:
        """Whether it is a plain number."""
        return not self.symbols

    @property
    def counts_rows(self) -> bool:
        """Whether it depends on the number of rows."""
        return ROWS_SYMBOL in self.symbols

    @property
    def is_rows(self) -> bool:
        """Whether it is the number of rows, or the number of rows times what is the same for all rows."""
        return self.symbols.count(ROWS_SYMBOL) == 1 and self.factor > 0

    def __str__(self) -> str:
        names = ["n" if symbol == ROWS_SYMBOL else "?" for symbol in self.symbols]
        if self.factor != 1 or not names:
            names.insert(0, str(self.factor))
        return "·".join(names)


ONE = Dim(1)
N = Dim(1, (ROWS_SYMBOL,))
Dims = tuple[Dim, ...]


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of all; 1 for none."""
    return reduce(lambda one, other: one * other, dims, ONE)


def static_dims(shape: Iterable[int | None], name: str) -> Dims:
    """Return the dimensions of a tensor: what is not known becomes a symbol of its own.

    Args:
        shape: sizes, None where unknown.
        name: unique in the graph.
    """
    return tuple(Dim(1, (f"{name}#{axis}",)) if size is None else Dim(int(size)) for axis, size in enumerate(shape))


def text(dims: Dims | None) -> str:
    """Return dimensions for people."""
    return "[?]" if dims is None else f"[{', '.join(str(dim) for dim in dims)}]"
