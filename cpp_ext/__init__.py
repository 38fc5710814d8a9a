"""The native core: `_rpc` (gRPC server, fan-out, table store), `_graph` (TensorFlow executor), the op library.

The compiled modules are installed beside this file in a wheel, and in site-packages in an editable install;
`extend_path` makes both one package.
"""

from __future__ import annotations

import os
from pkgutil import extend_path

# Read by TensorFlow's libraries when `_graph` brings them in: oneDNN's kernels cost a small request more than they
# save, and change the last bits of answers. Whoever sets the variable has decided otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

__path__ = extend_path(__path__, __name__)
