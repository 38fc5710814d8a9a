#include "cpp_ext/python/numpy_tensor.h"

#include <pybind11/stl.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

namespace py = pybind11;
namespace tf = tensorflow;

struct DtypeName {
  tf::DataType dtype;
  const char* numpy;
  bool extended;  // defined by the package ml_dtypes, which TensorFlow depends
                  // on
};

constexpr DtypeName kDtypes[] = {
    {tf::DT_FLOAT, "float32", false},
    {tf::DT_DOUBLE, "float64", false},
    {tf::DT_HALF, "float16", false},
    {tf::DT_INT8, "int8", false},
    {tf::DT_INT16, "int16", false},
    {tf::DT_INT32, "int32", false},
    {tf::DT_INT64, "int64", false},
    {tf::DT_UINT8, "uint8", false},
    {tf::DT_UINT16, "uint16", false},
    {tf::DT_UINT32, "uint32", false},
    {tf::DT_UINT64, "uint64", false},
    {tf::DT_BOOL, "bool", false},
    {tf::DT_COMPLEX64, "complex64", false},
    {tf::DT_COMPLEX128, "complex128", false},
    {tf::DT_BFLOAT16, "bfloat16", true},
    {tf::DT_INT4, "int4", true},
    {tf::DT_UINT4, "uint4", true},
    {tf::DT_FLOAT8_E5M2, "float8_e5m2", true},
    {tf::DT_FLOAT8_E4M3FN, "float8_e4m3fn", true},
};

absl::Status BadDtype(const std::string& name, const std::string& dtype) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": dtype ", dtype, " cannot be converted"));
}

absl::StatusOr<tf::Tensor> StringsFromNumpy(const std::string& name, const py::array& array,
                                            const tf::TensorShape& shape) {
  tf::Tensor tensor(tf::DT_STRING, shape);
  auto flat = tensor.flat<tf::tstring>();
  const py::list items = array.attr("ravel")().attr("tolist")();
  for (int64_t i = 0; i < flat.size(); ++i) {
    const py::object item = items[static_cast<size_t>(i)];
    if (!py::isinstance<py::bytes>(item) && !py::isinstance<py::str>(item)) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": element ", i, " is ", std::string(py::str(py::type::of(item))), ", expected bytes"));
    }
    flat(i) = item.cast<std::string>();
  }
  return tensor;
}

}  // namespace

absl::StatusOr<tf::DataType> DtypeFromName(const std::string& name, const std::string& dtype) {
  if (dtype == "string") return tf::DT_STRING;
  for (const DtypeName& known : kDtypes) {
    if (dtype == known.numpy) return known.dtype;
  }
  return BadDtype(name, dtype);
}

absl::StatusOr<tf::Tensor> TensorFromNumpy(const std::string& name, const py::object& value) {
  const py::module_ numpy = py::module_::import("numpy");
  const py::array array = numpy.attr("asarray")(value, py::arg("order") = "C");
  std::vector<int64_t> dims(array.shape(), array.shape() + array.ndim());
  tf::TensorShape shape;
  absl::Status status = tf::TensorShape::BuildTensorShape(absl::MakeConstSpan(dims), &shape);
  if (!status.ok()) return status;
  const char kind = array.dtype().kind();
  if (kind == 'O' || kind == 'S') return StringsFromNumpy(name, array, shape);
  const std::string dtype = py::str(array.dtype().attr("name"));
  for (const DtypeName& known : kDtypes) {
    if (dtype != known.numpy) continue;
    tf::Tensor tensor(known.dtype, shape);
    if (array.nbytes() != 0) memcpy(tensor.data(), array.data(), static_cast<size_t>(array.nbytes()));
    return tensor;
  }
  return BadDtype(name, dtype);
}

absl::StatusOr<py::object> NumpyFromTensor(const std::string& name, const tf::Tensor& tensor) {
  std::vector<py::ssize_t> dims;
  for (int i = 0; i < tensor.dims(); ++i) dims.push_back(tensor.dim_size(i));
  const py::module_ numpy = py::module_::import("numpy");
  if (tensor.dtype() == tf::DT_STRING) {
    const auto flat = tensor.flat<tf::tstring>();
    py::object array = numpy.attr("empty")(flat.size(), py::arg("dtype") = "object");
    for (int64_t i = 0; i < flat.size(); ++i) array[py::int_(i)] = py::bytes(flat(i).data(), flat(i).size());
    return array.attr("reshape")(py::cast(dims));
  }
  for (const DtypeName& known : kDtypes) {
    if (tensor.dtype() != known.dtype) continue;
    py::object type = py::str(known.numpy);
    if (known.extended) type = py::module_::import("ml_dtypes").attr(known.numpy);
    py::array array = numpy.attr("empty")(py::cast(dims), py::arg("dtype") = type);
    if (array.nbytes() != 0) memcpy(array.mutable_data(), tensor.data(), static_cast<size_t>(array.nbytes()));
    return py::object(std::move(array));
  }
  return BadDtype(name, tf::DataTypeString(tensor.dtype()));
}

}  // namespace tessera
