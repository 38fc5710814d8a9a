"""The native core: `_rpc` (gRPC server, fan-out, table store), `_graph` (TensorFlow executor), the op library.

The compiled modules are installed beside this file in a wheel, and in site-packages in an editable install;
`extend_path` makes both one package.
"""

from __future__ import annotations

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
