// Python's view of `cpp_ext/graph`. The GIL is released wherever TensorFlow
// works or something is waited for.
#include "cpp_ext/python/bind_graph.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/graph/life.h"
#include "cpp_ext/graph/run.h"
#include "cpp_ext/graph/shared_threads.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/tensor_decode.h"
#include "cpp_ext/graph/tensor_encode.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/python/bind_batching.h"
#include "cpp_ext/python/bind_platform.h"
#include "cpp_ext/python/bind_predictor.h"
#include "cpp_ext/python/bind_traffic.h"
#include "cpp_ext/python/numpy_tensor.h"
#include "cpp_ext/python/status_caster.h"
#include "tensorflow/core/util/util.h"

namespace tessera {
namespace {

namespace py = pybind11;
namespace tf = tensorflow;

void Check(const absl::Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), ToUtf8(status.message()));
}

template <typename T>
T Take(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// What `configure` set, and keeps the capsule of the fan-out alive. Guarded by
// the GIL.
struct Process {
  bool configured = false;
  py::object fanout_capsule = py::none();
  const TesseraFanoutApi* fanout = nullptr;
  int intra_op_threads = 0;
  bool onednn = false;
  int64_t max_in_flight_batches = 0;
  int64_t inline_budget_micros = LaneOptions().inline_budget_ns / 1000;
};

Process& TheProcess() {
  static Process* process = new Process;  // never destroyed: it holds a Python object
  return *process;
}

template <typename T>
T* FromCapsule(const py::object& object, const char* name, const char* argument) {
  if (object.is_none()) return nullptr;
  if (PyCapsule_IsValid(object.ptr(), name)) return static_cast<T*>(PyCapsule_GetPointer(object.ptr(), name));
  Check(absl::InvalidArgumentError(absl::StrCat(argument, ": got ", std::string(py::str(py::type::of(object))),
                                                ", expected a capsule \"", name, "\"")));
  return nullptr;
}

void CheckNotNegative(const char* name, int64_t value) {
  if (value < 0) Check(absl::InvalidArgumentError(absl::StrCat(name, ": got ", value, ", expected 0 or more")));
}

void Configure(const py::object& fanout, int intra_op_threads, bool onednn, int64_t max_in_flight_batches,
               int64_t inline_budget_micros) {
  Process& process = TheProcess();
  CheckNotNegative("max_in_flight_batches", max_in_flight_batches);
  CheckNotNegative("inline_budget_micros", inline_budget_micros);
  if (intra_op_threads < 0) {
    Check(absl::InvalidArgumentError(
        absl::StrCat("intra_op_threads: got ", intra_op_threads, ", expected 0 (one a core) or more")));
  }
  const auto* api = FromCapsule<const TesseraFanoutApi>(fanout, TESSERA_FANOUT_CAPSULE, "fanout");
  if (api != nullptr && api->abi_version != TESSERA_ABI_VERSION) {
    Check(
        absl::FailedPreconditionError(absl::StrCat("fanout: has ABI version ", api->abi_version, ", expected ",
                                                   TESSERA_ABI_VERSION, "; _rpc and _graph are of different builds")));
  }
  if (process.configured && (api != process.fanout || intra_op_threads != process.intra_op_threads ||
                             onednn != process.onednn || max_in_flight_batches != process.max_in_flight_batches ||
                             inline_budget_micros != process.inline_budget_micros)) {
    Check(
        absl::FailedPreconditionError("configure: was called before with other "
                                      "values, which a process cannot change"));
  }
  // TensorFlow decides when its libraries are loaded, from the environment; all
  // that is left is to compare.
  if (onednn && !tf::IsMKLEnabled()) {
    Check(
        absl::FailedPreconditionError("onednn: TensorFlow was loaded without it; set TF_ENABLE_ONEDNN_OPTS=1 "
                                      "before the process starts"));
  }
  if (!onednn && tf::IsMKLEnabled()) {
    LOG(WARNING) << "oneDNN is on (TF_ENABLE_ONEDNN_OPTS), which costs small "
                    "models several microseconds a request";
  }
  if (!process.configured) StartSharedThreads(intra_op_threads);
  process = {true, fanout, api, intra_op_threads, onednn, max_in_flight_batches, inline_budget_micros};
  LaneOptions lane;
  lane.max_in_flight_batches = max_in_flight_batches;
  lane.inline_budget_ns = inline_budget_micros * 1000;
  CpuLane(lane);
}

const char* ModeName(RunMode mode) {
  switch (mode) {
    case RunMode::kInline:
      return "inline";
    case RunMode::kAsync:
      return "async";
    case RunMode::kCallable:
      return "callable";
    case RunMode::kRefused:
      break;
  }
  return "refused";
}

std::shared_ptr<LoadedGraph> Load(const std::string& path, std::vector<std::string> tags,
                                  std::optional<std::map<std::string, std::string>> blobs, bool sessions_only,
                                  std::string name, bool batching, bool request_batching) {
  LoadOptions options;
  options.name = std::move(name);
  options.batching = batching;
  options.request_batching = request_batching;
  options.tags = std::move(tags);
  if (blobs.has_value()) options.blobs = *std::move(blobs);
  options.intra_op_threads = TheProcess().intra_op_threads;
  options.sessions_only = sessions_only;
  absl::StatusOr<std::shared_ptr<LoadedGraph>> graph;
  {
    py::gil_scoped_release release;
    graph = LoadedGraph::Load(path, options);
  }
  return Take(std::move(graph));
}

py::dict Signatures(const LoadedGraph& graph) {
  py::dict modes;
  for (const auto& [name, runnable] : graph.runnables()) modes[py::str(name)] = ModeName(runnable.mode());
  return modes;
}

py::dict Run(std::shared_ptr<LoadedGraph> graph, const std::string& signature, const py::dict& inputs,
             const py::object& route, double timeout_s) {
  NamedTensors tensors;
  for (const auto& [key, value] : inputs) {
    const auto alias = key.cast<std::string>();
    tensors[alias] = Take(TensorFromNumpy(alias, py::reinterpret_borrow<py::object>(value)));
  }
  std::shared_ptr<const ServedVersion> version = Take(ServedVersion::Make(
      0, std::move(graph), TheProcess().fanout, FromCapsule<TesseraRoute>(route, TESSERA_ROUTE_CAPSULE, "route"), {}));
  absl::StatusOr<NamedTensors> results;
  {
    py::gil_scoped_release release;
    results = RunAndWait(std::move(version), signature, tensors, absl::Seconds(timeout_s));
  }
  py::dict outputs;
  for (const auto& [alias, tensor] : Take(std::move(results)))
    outputs[py::str(alias)] = Take(NumpyFromTensor(alias, tensor));
  return outputs;
}

std::shared_ptr<ServedVersion> MakeVersion(int64_t version, std::shared_ptr<LoadedGraph> graph, const py::object& route,
                                           std::vector<std::string> labels,
                                           std::vector<std::shared_ptr<AnswerHook>> hooks) {
  return Take(ServedVersion::Make(version, std::move(graph), TheProcess().fanout,
                                  FromCapsule<TesseraRoute>(route, TESSERA_ROUTE_CAPSULE, "route"), std::move(labels),
                                  JoinHooks(std::move(hooks))));
}

py::bytes Recode(const std::string& tensor_proto, bool tensor_content) {
  tf::Tensor tensor;
  Check(DecodeTensor(tensor_proto, &tensor));
  TensorEncoder encoder;
  Check(encoder.Init(tensor, tensor_content));
  std::string out(encoder.size_bytes(), '\0');
  encoder.Write(reinterpret_cast<uint8_t*>(out.data()));
  return py::bytes(out);
}

}  // namespace

void BindGraph(py::module_& module) {
  module.def("configure", &Configure, py::kw_only(), py::arg("fanout") = py::none(), py::arg("intra_op_threads") = 0,
             py::arg("onednn") = false, py::arg("max_in_flight_batches") = 0,
             py::arg("inline_budget_micros") = LaneOptions().inline_budget_ns / 1000);
  module.def("recode_tensor", &Recode, py::arg("tensor_proto"), py::kw_only(), py::arg("tensor_content") = false);

  py::class_<LifeWatch, std::shared_ptr<LifeWatch>>(module, "GraphWatch")
      .def_property_readonly("freed", &LifeWatch::ended)
      .def(
          "wait", [](const LifeWatch& watch, double timeout_s) { return watch.Wait(absl::Seconds(timeout_s)); },
          py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>());

  GraphClass graph(module, "Graph", py::dynamic_attr());
  graph
      .def_static("load", &Load, py::arg("path"), py::kw_only(), py::arg("tags") = std::vector<std::string>{"serve"},
                  py::arg("blobs") = py::none(), py::arg("sessions_only") = false, py::arg("name") = "",
                  py::arg("batching") = true, py::arg("request_batching") = false)
      .def_property_readonly("signatures", &Signatures)
      .def_property_readonly("signature_defs",
                             [](const LoadedGraph& graph) { return py::bytes(graph.signature_defs()); })
      .def("watch", [](const LoadedGraph& graph) { return std::const_pointer_cast<LifeWatch>(graph.watch()); })
      .def_property_readonly("lookup_tables", &LoadedGraph::lookup_tables)
      .def("run", &Run, py::arg("signature"), py::arg("inputs"), py::kw_only(), py::arg("route") = py::none(),
           py::arg("timeout_s") = 60.0);
  BindBatching(module, graph);
  BindTraffic(module);
  BindPlatform(graph);

  py::class_<ServedVersion, std::shared_ptr<ServedVersion>>(module, "Version")
      .def(py::init(&MakeVersion), py::kw_only(), py::arg("version"), py::arg("graph"), py::arg("route") = py::none(),
           py::arg("labels") = std::vector<std::string>{},
           py::arg("hooks") = std::vector<std::shared_ptr<AnswerHook>>{});
  BindPredictor(module);
  BindShadow(module);
}

}  // namespace tessera
