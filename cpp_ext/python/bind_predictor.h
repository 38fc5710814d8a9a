#ifndef TESSERA_CPP_EXT_PYTHON_BIND_PREDICTOR_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_PREDICTOR_H_

#include <pybind11/pybind11.h>

namespace tessera {

// Adds `Predictor` to `module`, which has `Version`.
void BindPredictor(pybind11::module_& module);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_PREDICTOR_H_
