#include <pybind11/pybind11.h>

#include "cpp_ext/python/bind_graph.h"
#include "cpp_ext/python/bind_profiler.h"
#include "cpp_ext/python/bind_rest.h"
#include "tensorflow/c/c_api.h"

PYBIND11_MODULE(_graph, module) {
  // The C++ runtime that was found must be the one whose headers this was built
  // with.
  if (std::string(TF_Version()) != TESSERA_TF_VERSION) {
    throw pybind11::import_error(std::string("cpp_ext._graph was built for TensorFlow ") + TESSERA_TF_VERSION +
                                 ", but " + TF_Version() + " is installed; build Tessera again (make build)");
  }
  module.attr("__version__") = TESSERA_VERSION;
  tessera::BindGraph(module);
  tessera::BindProfiler(module);
  tessera::BindRest(module);
}
