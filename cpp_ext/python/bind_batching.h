#ifndef TESSERA_CPP_EXT_PYTHON_BIND_BATCHING_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_BATCHING_H_

#include <pybind11/pybind11.h>

#include <memory>

#include "cpp_ext/graph/graph.h"

namespace tessera {

using GraphClass = pybind11::class_<LoadedGraph, std::shared_ptr<LoadedGraph>>;

// Adds `BatchPolicy` and `batch_lanes` to `module`, and what concerns batches to `Graph`.
void BindBatching(pybind11::module_& module, GraphClass& graph);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_BATCHING_H_
