// Python's view of the predictor: snapshots in, handlers and statistics out.
#include "cpp_ext/python/bind_predictor.h"

#include <pybind11/stl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/predictor.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/python/bind_traffic.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;

constexpr const char* kCodeNames[kStatusCodes] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};
constexpr std::array<const char*, kMethods> kMethodNames = {"Predict", "Classify", "Regress", "MultiInference"};
constexpr std::array<const char*, kCountedEntrypoints + 1> kEntrypointNames = {"GRPC", "REST", "INTERNAL"};

void Check(const absl::Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), ToUtf8(status.message()));
}

// The position of `name` in `names`.
template <typename Names>
size_t Choose(const char* argument, const Names& names, const std::string& name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) {
    std::string expected;
    for (const char* one : names) absl::StrAppend(&expected, expected.empty() ? "" : ", ", one);
    Check(absl::InvalidArgumentError(absl::StrCat(argument, ": got \"", name, "\", expected one of ", expected)));
  }
  return static_cast<size_t>(found - names.begin());
}

// Waits for requests that end, which may need the interpreter for it. Also runs on threads of the core.
void DeletePredictor(Predictor* predictor) {
  if (PyGILState_Check() == 0) {
    delete predictor;
    return;
  }
  py::gil_scoped_release release;
  delete predictor;
}

std::shared_ptr<Predictor> MakePredictor(int64_t max_in_flight, bool tensor_content, bool check_method_names) {
  if (max_in_flight < 1) {
    Check(absl::InvalidArgumentError(absl::StrCat("max_in_flight: got ", max_in_flight, ", expected 1 or more")));
  }
  const PredictorOptions options = {max_in_flight, {tensor_content, check_method_names}};
  return std::shared_ptr<Predictor>(new Predictor(options), &DeletePredictor);
}

void Publish(Predictor& predictor, const std::map<std::string, std::vector<std::shared_ptr<ServedVersion>>>& models,
             const std::map<std::string, std::shared_ptr<TrafficSplit>>& traffic,
             std::map<std::string, std::map<std::string, int64_t>> labels, bool labels_known) {
  std::vector<ServedModel> served;
  for (const auto& [name, versions] : models) {
    ServedModel model;
    model.name = name;
    model.versions.assign(versions.begin(), versions.end());
    if (const auto split = traffic.find(name); split != traffic.end()) model.split = split->second;
    model.stats = predictor.request_stats().Of(name);
    served.push_back(std::move(model));
  }
  KnownLabels known;
  known.versions.insert(std::make_move_iterator(labels.begin()), std::make_move_iterator(labels.end()));
  known.complete = labels_known;
  absl::StatusOr<std::shared_ptr<const Snapshot>> snapshot = Snapshot::Make(std::move(served), std::move(known));
  Check(snapshot.status());
  py::gil_scoped_release release;  // may free graphs
  predictor.Publish(*std::move(snapshot));
}

py::capsule Handler(const std::shared_ptr<Predictor>& predictor, const std::string& method) {
  TesseraHandler* handler = predictor->handler(static_cast<Method>(Choose("method", kMethodNames, method)));
  auto* keep = new std::shared_ptr<Predictor>(predictor);
  PyObject* capsule = PyCapsule_New(handler, TESSERA_HANDLER_CAPSULE, [](PyObject* object) {
    delete static_cast<std::shared_ptr<Predictor>*>(PyCapsule_GetContext(object));
  });
  if (capsule == nullptr || PyCapsule_SetContext(capsule, keep) != 0) throw py::error_already_set();
  return py::reinterpret_steal<py::capsule>(capsule);
}

py::bytes Call(const std::shared_ptr<Predictor>& predictor, const std::string& method, std::string request,
               double timeout_s, std::optional<std::map<std::string, std::string>> metadata,
               const std::string& entrypoint) {
  TesseraHandler* handler = predictor->handler(static_cast<Method>(Choose("method", kMethodNames, method)));
  LocalCallOptions options;
  options.entrypoint = static_cast<Entrypoint>(Choose("entrypoint", kEntrypointNames, entrypoint));
  if (metadata.has_value()) options.metadata.insert(metadata->begin(), metadata->end());
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  options.deadline_ns = now.tv_sec * int64_t{1000000000} + now.tv_nsec + static_cast<int64_t>(timeout_s * 1e9);
  std::string response;
  absl::Status status;
  {
    py::gil_scoped_release release;
    status = LocalCall::CallAndWait(handler, std::move(request), std::move(options), &response);
  }
  Check(status);
  return py::bytes(response);
}

// `divisor` gives the unit of the sum.
template <size_t kCells>
py::dict Histogram(const HistogramTotals<kCells>& totals, double divisor) {
  uint64_t count = 0;
  for (const uint64_t cell : totals.counts) count += cell;
  py::dict out;
  out["counts"] = py::cast(std::vector<uint64_t>(totals.counts.begin(), totals.counts.end()));
  out["sum"] = static_cast<double>(totals.sum) / divisor;
  out["count"] = count;
  return out;
}

py::dict Codes(const std::array<uint64_t, kStatusCodes>& counts, size_t first) {
  py::dict codes;
  for (size_t i = first; i < counts.size(); ++i) {
    if (counts[i] != 0) codes[kCodeNames[i]] = counts[i];
  }
  return codes;
}

py::dict RequestTotalsDict(const RequestTotals& totals) {
  py::dict out, stages;
  stages["decode"] = Histogram(totals.decode, 1000);
  stages["run"] = Histogram(totals.run, 1000);
  stages["encode"] = Histogram(totals.encode, 1000);
  out["codes"] = Codes(totals.codes, 0);
  out["latency_micros"] = Histogram(totals.latency, 1000);
  out["runtime_micros"] = Histogram(totals.runtime, 1000);
  out["stages_micros"] = stages;
  out["examples"] = Histogram(totals.examples, 1);
  return out;
}

py::dict MethodStats(const RequestStats& stats) {
  py::dict methods;
  for (size_t method = 0; method < kMethods; ++method) {
    py::dict entrypoints;
    for (size_t entrypoint = 0; entrypoint < kCountedEntrypoints; ++entrypoint) {
      RequestTotals totals;
      if (!stats.Read(static_cast<Method>(method), static_cast<Entrypoint>(entrypoint), &totals)) continue;
      entrypoints[kEntrypointNames[entrypoint]] = RequestTotalsDict(totals);
    }
    if (!entrypoints.empty()) methods[kMethodNames[method]] = entrypoints;
  }
  return methods;
}

py::dict Stats(const Predictor& predictor) {
  const PredictorStats stats = predictor.stats();
  py::dict models, methods;
  for (const ServedModel& model : predictor.snapshot()->models()) {
    py::dict versions;
    for (const Pin& version : model.versions) versions[py::int_(version->version())] = version->requests();
    models[py::str(model.name)] = versions;
  }
  for (const auto& [name, of_model] : predictor.request_stats().All()) {
    py::dict by_method = MethodStats(*of_model);
    if (!by_method.empty()) methods[py::str(name)] = by_method;
  }
  py::dict result;
  result["requests"] = stats.requests;
  result["errors"] = Codes(stats.errors, 1);
  result["in_flight"] = stats.in_flight;
  result["run_again"] = stats.run_again;
  result["awaiting_newer"] = stats.awaiting_newer;
  result["models"] = models;
  result["traffic"] = TrafficStats(*predictor.snapshot());
  result["methods"] = methods;
  return result;
}

std::vector<double> LatencyBounds() {
  std::vector<double> bounds;
  for (const int64_t bound_ns : LatencyBoundsNs()) bounds.push_back(static_cast<double>(bound_ns) / 1000);
  return bounds;
}

}  // namespace

void BindPredictor(py::module_& module) {
  module.def("latency_bounds_micros", &LatencyBounds);
  py::class_<Predictor, std::shared_ptr<Predictor>>(module, "Predictor")
      .def(py::init(&MakePredictor), py::kw_only(), py::arg("max_in_flight") = PredictorOptions().max_in_flight,
           py::arg("tensor_content") = false, py::arg("check_method_names") = false)
      .def("publish", &Publish, py::arg("models"), py::kw_only(),
           py::arg("traffic") = std::map<std::string, std::shared_ptr<TrafficSplit>>{},
           py::arg("labels") = std::map<std::string, std::map<std::string, int64_t>>{}, py::arg("labels_known") = true)
      .def("handler", &Handler, py::arg("method") = kMethodNames[0])
      .def("call", &Call, py::arg("method"), py::arg("request"), py::kw_only(), py::arg("timeout_s"),
           py::arg("metadata") = py::none(), py::arg("entrypoint") = kEntrypointNames[2])
      .def("stats", &Stats);
}

}  // namespace tessera
