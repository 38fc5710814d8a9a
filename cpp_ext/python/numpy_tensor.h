// numpy arrays ↔ tensors, by copy. Every function needs the GIL.
#ifndef TESSERA_CPP_EXT_PYTHON_NUMPY_TENSOR_H_
#define TESSERA_CPP_EXT_PYTHON_NUMPY_TENSOR_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "absl/status/statusor.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// The type that numpy calls `dtype`; "string" for strings. INVALID_ARGUMENT names `name`.
absl::StatusOr<tensorflow::DataType> DtypeFromName(const std::string& name, const std::string& dtype);
// `name` is used in messages. Strings are object arrays of bytes or str, or
// arrays of numpy's fixed-width bytes.
absl::StatusOr<tensorflow::Tensor> TensorFromNumpy(const std::string& name, const pybind11::object& value);
// Strings become an object array of bytes.
absl::StatusOr<pybind11::object> NumpyFromTensor(const std::string& name, const tensorflow::Tensor& tensor);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_NUMPY_TENSOR_H_
