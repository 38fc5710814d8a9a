#ifndef TESSERA_CPP_EXT_PYTHON_BIND_PROFILER_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_PROFILER_H_

#include <pybind11/pybind11.h>

namespace tessera {

// Adds `Profiler` and `file_descriptor` to `module`. Requires the GIL.
void BindProfiler(pybind11::module_& module);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_PROFILER_H_
