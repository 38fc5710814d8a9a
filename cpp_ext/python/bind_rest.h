#ifndef TESSERA_CPP_EXT_PYTHON_BIND_REST_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_REST_H_

#include <pybind11/pybind11.h>

namespace tessera {

// Adds `Rest`. REQUIRES: `BindGraph` has run.
void BindRest(pybind11::module_& module);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_REST_H_
