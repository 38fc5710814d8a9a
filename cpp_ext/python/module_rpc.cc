#include <absl/synchronization/mutex.h>
#include <pybind11/pybind11.h>

#include "cpp_ext/python/bind_rpc.h"

PYBIND11_MODULE(_rpc, module) {
  module.doc() = "gRPC without Python: the server, the fan-out client and the table store.";
  module.attr("__version__") = TESSERA_VERSION;
  // Debian builds abseil with the detection of lock cycles, which costs each request of gRPC some per cent.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  tessera::BindTable(module);
  tessera::BindServer(module);
  tessera::BindFanout(module);
}
