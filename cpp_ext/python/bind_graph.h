#ifndef TESSERA_CPP_EXT_PYTHON_BIND_GRAPH_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_GRAPH_H_

#include <pybind11/pybind11.h>

namespace tessera {

// Adds `configure`, `Graph`, `Version` and `Predictor` to `module`.
void BindGraph(pybind11::module_& module);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_GRAPH_H_
