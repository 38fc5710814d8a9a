#include <pybind11/pybind11.h>

#include "cpp_ext/python/bind_rpc.h"

PYBIND11_MODULE(_rpc, module) {
  module.doc() = "gRPC without Python: the server, the fan-out client and the table store.";
  module.attr("__version__") = TESSERA_VERSION;
  tessera::BindTable(module);
  tessera::BindServer(module);
  tessera::BindFanout(module);
}
