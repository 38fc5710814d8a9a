#include "cpp_ext/python/bind_platform.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/foreign_runner.h"
#include "cpp_ext/python/numpy_tensor.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;
namespace tf = tensorflow;

// (dtype, dimensions: -1 for any, None for any rank).
using TensorSpec = std::pair<std::string, std::optional<std::vector<int64_t>>>;
using Specs = std::map<std::string, TensorSpec>;
using SignatureSpecs = std::map<std::string, std::pair<Specs, Specs>>;  // inputs, outputs

constexpr const char* kPredictMethod = "tensorflow/serving/predict";

// A `run` of Python. The GIL is held only while it runs; the callable is let go of under it, too.
class PythonModel : public ForeignModel {
 public:
  explicit PythonModel(py::function run) : run_(std::move(run)) {}
  ~PythonModel() override {
    if (Py_IsInitialized() == 0) {
      run_.release();  // nothing is left that could take it
      return;
    }
    py::gil_scoped_acquire gil;
    run_ = py::object();
  }

  absl::Status Run(const Signature& signature, const std::vector<tf::Tensor>& args,
                   std::vector<tf::Tensor>* results) const override {
    py::gil_scoped_acquire gil;
    try {
      return Call(signature, args, results);
    } catch (const py::error_already_set& error) {
      const Status status = StatusOf(error);
      return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
    } catch (const std::exception& error) {  // pybind11's casts
      return absl::InternalError(absl::StrCat("unexpected error: ", error.what()));
    }
  }

 private:
  absl::Status Call(const Signature& signature, const std::vector<tf::Tensor>& args,
                    std::vector<tf::Tensor>* results) const {
    py::dict inputs;
    for (size_t i = 0; i < args.size(); ++i) {
      const std::string& alias = signature.inputs()[i].alias;
      absl::StatusOr<py::object> array = NumpyFromTensor(alias, args[i]);
      if (!array.ok()) return array.status();
      inputs[py::str(alias)] = *std::move(array);
    }
    py::list wanted;
    for (const SignatureOutput& output : signature.outputs()) wanted.append(py::str(output.alias));
    const py::object answer = run_(signature.name(), inputs, wanted);
    if (!py::isinstance<py::dict>(answer)) {
      return absl::InternalError(absl::StrCat("the model returned ", std::string(py::str(py::type::of(answer))),
                                              ", expected a dict of arrays by output"));
    }
    const auto arrays = py::reinterpret_borrow<py::dict>(answer);
    for (const SignatureOutput& output : signature.outputs()) {
      if (!arrays.contains(output.alias.c_str())) {
        return absl::InternalError(absl::StrCat("the model did not return output ", output.alias));
      }
      absl::StatusOr<tf::Tensor> tensor = TensorFromNumpy(output.alias, arrays[output.alias.c_str()]);
      if (!tensor.ok()) return absl::InternalError(absl::StrCat("the model's output ", tensor.status().message()));
      (*results)[static_cast<size_t>(output.fetch)] = *std::move(tensor);
    }
    return absl::OkStatus();
  }

  py::object run_;
};

void Declare(const std::string& signature, const char* kind, const Specs& specs,
             google::protobuf::Map<std::string, tf::TensorInfo>* infos) {
  for (const auto& [alias, spec] : specs) {
    const auto& [dtype_name, dims] = spec;
    tf::TensorInfo& info = (*infos)[alias];
    absl::StatusOr<tf::DataType> dtype = DtypeFromName(absl::StrCat(signature, ": ", kind, " ", alias), dtype_name);
    if (!dtype.ok()) RaiseStatus(static_cast<int>(dtype.status().code()), std::string(dtype.status().message()));
    info.set_dtype(*dtype);
    // Inputs and outputs may have one name and be different tensors nevertheless.
    info.set_name(absl::StrCat(kind, "/", alias, ":0"));
    if (!dims.has_value()) {
      info.mutable_tensor_shape()->set_unknown_rank(true);
      continue;
    }
    info.mutable_tensor_shape();  // a scalar's is there, and empty
    for (const int64_t size : *dims) info.mutable_tensor_shape()->add_dim()->set_size(size < 0 ? -1 : size);
  }
}

std::shared_ptr<LoadedGraph> Foreign(const SignatureSpecs& signatures, py::function run, std::string name, int workers,
                                     int max_waiting, bool request_batching) {
  if (workers < 1 || max_waiting < 1) {
    RaiseStatus(static_cast<int>(Code::kInvalidArgument),
                absl::StrCat(workers < 1 ? "workers" : "max_waiting", ": got ", workers < 1 ? workers : max_waiting,
                             ", expected 1 or more"));
  }
  tf::MetaGraphDef meta_graph;
  for (const auto& [signature, specs] : signatures) {
    tf::SignatureDef& def = (*meta_graph.mutable_signature_def())[signature];
    def.set_method_name(kPredictMethod);
    Declare(signature, "input", specs.first, def.mutable_inputs());
    Declare(signature, "output", specs.second, def.mutable_outputs());
  }
  ForeignOptions options;
  options.name = std::move(name);
  options.workers = static_cast<size_t>(workers);
  options.max_waiting = static_cast<size_t>(max_waiting);
  options.request_batching = request_batching;
  auto graph = LoadedGraph::Foreign(meta_graph, std::make_shared<PythonModel>(std::move(run)), options);
  if (!graph.ok()) RaiseStatus(static_cast<int>(graph.status().code()), std::string(graph.status().message()));
  return *std::move(graph);
}

}  // namespace

void BindPlatform(GraphClass& graph) {
  const ForeignOptions defaults;
  graph.def_static("foreign", &Foreign, py::arg("signatures"), py::arg("run"), py::kw_only(), py::arg("name") = "",
                   py::arg("workers") = defaults.workers, py::arg("max_waiting") = defaults.max_waiting,
                   py::arg("request_batching") = defaults.request_batching);
}

}  // namespace tessera
