"""Finds TensorFlow's C++ runtime for `cpp_ext._graph` when it is not where the module looks by itself.

`_graph` looks in the folder `tensorflow` beside `cpp_ext`, where a wheel or an editable install puts both. With other
layouts (`pip install --target`, a path of one's own) call `preload_tensorflow` before the first import of `_graph`.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

from tessera.errors import NotFoundError

_LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


def preload_tensorflow() -> Path:
    """Load TensorFlow's two C++ libraries without importing TensorFlow, and return their folder.

    They are loaded without offering their symbols to other libraries; `_graph` then finds them by name. May be called
    again, and after TensorFlow was imported.

    Raises:
        NotFoundError: no TensorFlow is installed, or it has no such library.

    Cost: about 0.2 s the first time.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise NotFoundError("tensorflow: not installed in this environment, expected tensorflow==2.21.*")
    folder = Path(spec.origin).parent
    for name in _LIBRARIES:
        if not (folder / name).exists():
            raise NotFoundError(f"tensorflow: no {name} in {folder}")
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_LOCAL)
    return folder
