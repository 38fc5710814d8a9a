// Python's view of what happens to traffic besides being answered: splits and hooks.
#include "cpp_ext/python/bind_traffic.h"

#include <pybind11/stl.h>

#include <map>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/request_log.h"
#include "cpp_ext/graph/shadow.h"
#include "cpp_ext/graph/traffic.h"
#include "cpp_ext/graph/utf8.h"
#include "cpp_ext/python/status_caster.h"

namespace tessera {
namespace {

namespace py = pybind11;

template <typename T>
T Take(absl::StatusOr<T> value) {
  if (!value.ok()) RaiseStatus(static_cast<int>(value.status().code()), ToUtf8(value.status().message()));
  return *std::move(value);
}

class JoinedHooks final : public AnswerHook {
 public:
  explicit JoinedHooks(std::vector<std::shared_ptr<AnswerHook>> hooks) : hooks_(std::move(hooks)) {}
  void OnAnswer(const AnsweredRequest& answered) override {
    for (const auto& hook : hooks_) hook->OnAnswer(answered);
  }

 private:
  const std::vector<std::shared_ptr<AnswerHook>> hooks_;
};

std::shared_ptr<TrafficSplit> MakeSplit(const std::map<std::variant<int64_t, std::string>, double>& percent,
                                        std::string sticky_header) {
  std::vector<TrafficSplit::Share> shares;
  for (const auto& [to, share] : percent) {
    if (std::holds_alternative<int64_t>(to)) {
      shares.push_back({"", std::get<int64_t>(to), share});
    } else {
      shares.push_back({std::get<std::string>(to), -1, share});
    }
  }
  return Take(TrafficSplit::Make(std::move(shares), std::move(sticky_header)));
}

py::dict Counts(const TrafficSplit& split) {
  py::dict counts;
  for (size_t i = 0; i < split.shares().size(); ++i) {
    const TrafficSplit::Share& share = split.shares()[i];
    const TrafficSplit::Counts found = split.counts(i);
    py::dict one;
    one["chosen"] = found.chosen;
    one["rerouted"] = found.rerouted;
    counts[py::str(share.label.empty() ? absl::StrCat(share.version) : share.label)] = one;
  }
  return counts;
}

void CheckRange(const char* name, double value, double least, double most) {
  if (value >= least && value <= most) return;
  const std::string message = absl::StrCat(name, ": got ", value, ", expected ", least, " to ", most);
  RaiseStatus(static_cast<int>(absl::StatusCode::kInvalidArgument), message);
}

std::shared_ptr<RequestLog> MakeLog(std::string model, double sampling_rate, int64_t max_records, int64_t max_bytes) {
  CheckRange("sampling_rate", sampling_rate, 0, 1);
  CheckRange("max_records", static_cast<double>(max_records), 1, 1 << 24);
  CheckRange("max_bytes", static_cast<double>(max_bytes), 1, 1e12);
  return std::make_shared<RequestLog>(RequestLogOptions{
      std::move(model), sampling_rate, static_cast<size_t>(max_records), static_cast<size_t>(max_bytes)});
}

py::list TakeRecords(RequestLog& log, double timeout_s) {
  std::vector<std::string> records;
  {
    py::gil_scoped_release release;
    records = log.Take(absl::Seconds(timeout_s));
  }
  py::list taken;
  for (std::string& record : records) {
    taken.append(py::bytes(record));
    record = std::string();  // not all of them twice
  }
  return taken;
}

py::dict LogCounts(const RequestLog& log) {
  py::dict counts;
  counts["sampled"] = log.counts().sampled;
  counts["dropped"] = log.counts().dropped;
  return counts;
}

std::shared_ptr<Shadow> MakeShadow(const std::shared_ptr<Predictor>& predictor, std::string model,
                                   const std::variant<int64_t, std::string>& version, double percent, double tolerance,
                                   int64_t max_in_flight, double timeout_s) {
  CheckRange("percent", percent, 0, 100);
  CheckRange("tolerance", tolerance, 0, 1e300);
  CheckRange("max_in_flight", static_cast<double>(max_in_flight), 1, 1 << 16);
  CheckRange("timeout_s", timeout_s, 1e-3, 1e6);
  ShadowOptions options;
  options.model = std::move(model);
  if (std::holds_alternative<int64_t>(version)) {
    options.version = std::get<int64_t>(version);
    CheckRange("version", static_cast<double>(options.version), 0, 0x1p63);
  } else {
    options.label = std::get<std::string>(version);
  }
  options.percent = percent;
  options.tolerance = tolerance;
  options.max_in_flight = max_in_flight;
  options.timeout_ns = static_cast<int64_t>(timeout_s * 1e9);
  return std::make_shared<Shadow>(predictor, std::move(options));
}

py::dict ShadowStats(const Shadow& shadow) {
  const ShadowCounts found = shadow.counts();
  py::dict counts;
  counts["equal"] = found.equal;
  counts["different"] = found.different;
  counts["failed"] = found.failed;
  counts["dropped"] = found.dropped;
  counts["in_flight"] = found.in_flight;
  return counts;
}

}  // namespace

std::shared_ptr<AnswerHook> JoinHooks(std::vector<std::shared_ptr<AnswerHook>> hooks) {
  if (hooks.empty()) return nullptr;
  if (hooks.size() == 1) return std::move(hooks.front());
  return std::make_shared<JoinedHooks>(std::move(hooks));
}

py::dict TrafficStats(const Snapshot& snapshot) {
  py::dict models;
  for (const ServedModel& model : snapshot.models()) {
    if (model.split != nullptr) models[py::str(model.name)] = Counts(*model.split);
  }
  return models;
}

void BindTraffic(py::module_& module) {
  py::class_<TrafficSplit, std::shared_ptr<TrafficSplit>>(module, "TrafficSplit")
      .def(py::init(&MakeSplit), py::arg("percent"), py::kw_only(), py::arg("sticky_header") = "")
      .def("counts", &Counts);
  py::class_<AnswerHook, std::shared_ptr<AnswerHook>>(module, "AnswerHook");
  const RequestLogOptions defaults;
  py::class_<RequestLog, AnswerHook, std::shared_ptr<RequestLog>>(module, "RequestLog")
      .def(py::init(&MakeLog), py::kw_only(), py::arg("model"), py::arg("sampling_rate"),
           py::arg("max_records") = static_cast<int64_t>(defaults.max_records),
           py::arg("max_bytes") = static_cast<int64_t>(defaults.max_bytes))
      .def("take", &TakeRecords, py::kw_only(), py::arg("timeout_s"))
      .def("close", &RequestLog::Close)
      .def("counts", &LogCounts);
}

void BindShadow(py::module_& module) {
  const ShadowOptions defaults;
  py::class_<Shadow, AnswerHook, std::shared_ptr<Shadow>>(module, "Shadow")
      .def(py::init(&MakeShadow), py::arg("predictor"), py::kw_only(), py::arg("model"), py::arg("version"),
           py::arg("percent") = defaults.percent, py::arg("tolerance") = defaults.tolerance,
           py::arg("max_in_flight") = defaults.max_in_flight,
           py::arg("timeout_s") = static_cast<double>(defaults.timeout_ns) * 1e-9)
      .def("counts", &ShadowStats);
}

}  // namespace tessera
