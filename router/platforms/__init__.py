"""The kinds of models that can be served, found by entry point (`tessera.platforms`).

REQUIRED of all of them: no Python TensorFlow is imported.
"""

from router.platforms.base import LoadOptions, MemoryEstimate, Platform
from router.platforms.registry import DEFAULT, find_platform, platforms

__all__ = ["DEFAULT", "LoadOptions", "MemoryEstimate", "Platform", "find_platform", "platforms"]
