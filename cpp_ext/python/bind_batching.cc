// Python's view of the batched regions of a graph: policies in, statistics out.
#include "cpp_ext/python/bind_batching.h"

#include <pybind11/stl.h>

#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_groups.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;

constexpr std::array<const char*, 3> kPaddingNames = {"pad_up", "batch_down", "min_cost"};
constexpr std::array<const char*, static_cast<size_t>(CloseReason::kCount)> kCloseReasonNames = {
    "idle", "full", "timeout", "deadline", "all_in_loop", "bisect"};

void CheckStatus(const Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), status.message());
}

BatchPolicy MakePolicy(int64_t max_batch_size, std::vector<int64_t> allowed_batch_sizes, int64_t batch_timeout_micros,
                       int64_t max_enqueued_rows, int64_t max_enqueued_bytes, int64_t max_in_flight_batches,
                       int32_t priority, double weight, const std::string& padding, bool split_large_inputs) {
  BatchPolicy policy;
  policy.max_batch_size = max_batch_size;
  policy.allowed_batch_sizes = std::move(allowed_batch_sizes);
  policy.batch_timeout_ns = batch_timeout_micros * 1000;
  policy.max_enqueued_rows = max_enqueued_rows;
  policy.max_enqueued_bytes = max_enqueued_bytes;
  policy.max_in_flight_batches = max_in_flight_batches;
  policy.priority = priority;
  policy.weight = weight;
  policy.split_large_inputs = split_large_inputs;
  size_t choice = 0;
  while (choice < kPaddingNames.size() && padding != kPaddingNames[choice]) ++choice;
  if (choice == kPaddingNames.size()) {
    CheckStatus(Status(Code::kInvalidArgument,
                       "padding: got \"" + padding + "\", expected \"pad_up\", \"batch_down\" or \"min_cost\""));
  }
  policy.padding = static_cast<BatchPadding>(choice);
  CheckStatus(policy.Check());
  return policy;
}

template <size_t kCells>
py::dict Histogram(const PowerHistogram<kCells>& histogram) {
  py::dict result;
  result["counts"] = std::vector<uint64_t>(histogram.counts.begin(), histogram.counts.end());
  result["sum"] = histogram.sum;
  result["count"] = histogram.count;
  return result;
}

py::dict GroupStats(const BatchGroups::Entry& entry) {
  const BatchGroupStats stats = entry.lane().stats(entry.group());
  py::dict reasons, result;
  for (size_t i = 0; i < kCloseReasonNames.size(); ++i) reasons[kCloseReasonNames[i]] = stats.close_reasons[i];
  result["tasks"] = stats.tasks;
  result["rows"] = stats.rows;
  result["batches"] = stats.batches;
  result["padding_rows"] = stats.padding_rows;
  result["padding_elements"] = entry.padding_elements();
  result["elements"] = entry.elements();
  result["inline_batches"] = stats.inline_batches;
  result["batch_sizes"] = stats.batch_sizes;
  result["close_reasons"] = reasons;
  result["queue_delay_micros"] = Histogram(stats.queue_delay_micros);
  result["execution_micros"] = Histogram(stats.execution_micros);
  result["rejected_rows_bound"] = stats.rejected_rows_bound;
  result["rejected_bytes_bound"] = stats.rejected_bytes_bound;
  result["rejected_too_large"] = stats.rejected_too_large;
  result["expired_queued"] = stats.expired_queued;
  result["expired_running"] = stats.expired_running;
  result["cancelled"] = stats.cancelled;
  result["failed_batches"] = stats.failed_batches;
  result["bisected_batches"] = stats.bisected_batches;
  result["enqueued_rows"] = stats.enqueued_rows;
  result["enqueued_bytes"] = stats.enqueued_bytes;
  result["in_loop"] = stats.in_loop;
  result["device_ns"] = stats.device_ns;
  return result;
}

py::dict AllStats(const LoadedGraph& graph) {
  py::dict result;
  for (const auto& [region, entry] : graph.batch_groups().entries()) result[py::str(region)] = GroupStats(*entry);
  return result;
}

// Why requests of a region run one by one, empty when they do not.
std::string Refusal(const LoadedGraph& graph, const std::string& region, const BatchGroups::Entry& entry) {
  const Runnable* runnable = graph.Find(region);
  const bool given_up =
      runnable != nullptr && runnable->request_batch() != nullptr && !runnable->request_batch()->active();
  return given_up ? "an output had not as many rows as the inputs" : std::string(entry.refused().message());
}

py::dict Regions(const LoadedGraph& graph) {
  py::dict result;
  for (const auto& [region, entry] : graph.batch_groups().entries()) {
    py::dict about;
    std::vector<std::string> signatures;
    for (const auto& [name, runnable] : graph.runnables()) {
      if (runnable.request_batch() != nullptr && name == region) signatures.push_back(name);
      if (runnable.executor() == nullptr) continue;
      for (const auto& in_signature : runnable.executor()->regions()) {
        if (in_signature->name() == region) signatures.push_back(name);
      }
    }
    about["signatures"] = signatures;
    about["in_loop"] = entry->in_loop();
    about["refused"] = Refusal(graph, region, *entry);
    result[py::str(region)] = about;
  }
  return result;
}

void SetBatching(const LoadedGraph& graph, const std::map<std::string, BatchPolicy>& policies) {
  const absl::Status status = graph.batch_groups().SetPolicies(policies);
  CheckStatus(Status(static_cast<Code>(status.code()), std::string(status.message())));
}

py::dict Lanes() {
  const BatchLane& lane = CpuLane();
  const LaneStats stats = lane.stats();
  py::dict about, result;
  about["busy_ns"] = stats.busy_ns;
  about["since_ns"] = stats.since_ns;
  about["now_ns"] = stats.now_ns;
  about["in_flight"] = stats.in_flight;
  about["in_flight_limit"] = stats.in_flight_limit;
  about["timer_wakeups"] = stats.timer_wakeups;
  result[py::str(lane.name())] = about;
  return result;
}

}  // namespace

void BindBatching(py::module_& module, GraphClass& graph) {
  const BatchPolicy defaults;
  py::class_<BatchPolicy>(module, "BatchPolicy")
      .def(py::init(&MakePolicy), py::kw_only(), py::arg("max_batch_size") = defaults.max_batch_size,
           py::arg("allowed_batch_sizes") = std::vector<int64_t>{},
           py::arg("batch_timeout_micros") = defaults.batch_timeout_ns / 1000,
           py::arg("max_enqueued_rows") = defaults.max_enqueued_rows,
           py::arg("max_enqueued_bytes") = defaults.max_enqueued_bytes,
           py::arg("max_in_flight_batches") = defaults.max_in_flight_batches, py::arg("priority") = defaults.priority,
           py::arg("weight") = defaults.weight, py::arg("padding") = kPaddingNames[0],
           py::arg("split_large_inputs") = defaults.split_large_inputs);
  module.def("batch_lanes", &Lanes);
  graph.def_property_readonly("batch_regions", &Regions)
      .def("set_batching", &SetBatching, py::arg("policies"))
      .def("batching_stats", &AllStats);
  graph.attr("own_policy") = py::none();
}

}  // namespace tessera
