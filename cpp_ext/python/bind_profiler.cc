#include "cpp_ext/python/bind_profiler.h"

#include <string>
#include <utility>

#include "cpp_ext/graph/profiler.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;

void CheckOk(const absl::Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), ToUtf8(status.message()));
}

std::unique_ptr<Profiler> StartProfiler(const py::bytes& options) {
  const std::string text = options;
  absl::StatusOr<std::unique_ptr<Profiler>> profiler = [&] {
    py::gil_scoped_release release;
    return Profiler::Start(text);
  }();
  CheckOk(profiler.status());
  return *std::move(profiler);
}

py::tuple Collect(Profiler& profiler) {
  std::string xspace;
  bool is_empty = true;
  absl::Status status;
  {
    py::gil_scoped_release release;
    status = profiler.Collect(&xspace, &is_empty);
  }
  CheckOk(status);
  return py::make_tuple(py::bytes(xspace), is_empty);
}

py::bytes FileDescriptor(const std::string& file) {
  const absl::StatusOr<std::string> proto = FileDescriptorOf(file);
  CheckOk(proto.status());
  return *proto;
}

}  // namespace

void BindProfiler(py::module_& module) {
  py::class_<Profiler>(module, "Profiler")
      .def(py::init(&StartProfiler), py::arg("options") = py::bytes())
      .def("collect", &Collect);
  module.def("file_descriptor", &FileDescriptor, py::arg("file"));
}

}  // namespace tessera
