#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/python/bind_rpc.h"
#include "cpp_ext/python/status_caster.h"
#include "cpp_ext/rpc/fanout.h"
#include "cpp_ext/rpc/lookup_trace.h"
#include "cpp_ext/table/table_store.h"

namespace py = pybind11;

namespace tessera {
namespace {

// Threads of its own for a fan-out without a server.
std::shared_ptr<Pollers> OwnPollers(int count) {
  std::vector<std::unique_ptr<grpc::CompletionQueue>> queues;
  for (int i = 0; i < std::max(1, count); ++i) queues.push_back(std::make_unique<grpc::CompletionQueue>());
  auto pollers = std::make_shared<Pollers>(std::move(queues));
  pollers->Start();
  return pollers;
}

py::dict TracedDict(int64_t started_ns, int64_t ended_ns, const Status& status) {
  py::dict result;
  result["started_ns"] = started_ns;
  result["ended_ns"] = ended_ns;
  result["code"] = static_cast<int>(status.code());
  result["message"] = py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(status.message().data(), static_cast<Py_ssize_t>(status.message().size()), "replace"));
  return result;
}

py::dict TracedDict(const TracedLookup& lookup) {
  py::dict result = TracedDict(lookup.started_ns, lookup.ended_ns, lookup.status);
  result["rows"] = lookup.rows;
  result["repeats"] = lookup.repeats;
  py::list sub_requests;
  for (const TracedSubRequest& sub : lookup.sub_requests) {
    py::dict one = TracedDict(sub.started_ns, sub.ended_ns, sub.status);
    one["server_id"] = sub.server_id;
    one["address"] = sub.address;
    one["cause"] = sub.cause;
    one["table_rows"] = sub.table_rows;
    one["ids_bytes"] = sub.ids_bytes;
    one["rows_bytes"] = sub.rows_bytes;
    sub_requests.append(one);
  }
  result["sub_requests"] = sub_requests;
  return result;
}

class PyRoute {
 public:
  PyRoute(Ref<TesseraRoute> route, std::shared_ptr<LookupTrace> trace)
      : route_(std::move(route)), trace_(std::move(trace)) {}

  py::dict Trace() const {
    py::dict result;
    py::list lookups;
    if (trace_ != nullptr) {
      for (const TracedLookup& lookup : trace_->lookups()) lookups.append(TracedDict(lookup));
    }
    result["lookups"] = lookups;
    result["dropped"] = trace_ != nullptr ? trace_->dropped() : 0;
    return result;
  }

  py::capsule MakeCapsule() const {
    Ref<TesseraRoute> reference = route_;
    return py::capsule(reference.Detach(), TESSERA_ROUTE_CAPSULE, [](PyObject* capsule) {
      static_cast<TesseraRoute*>(PyCapsule_GetPointer(capsule, TESSERA_ROUTE_CAPSULE))->Release();
    });
  }

 private:
  const Ref<TesseraRoute> route_;
  const std::shared_ptr<LookupTrace> trace_;
};

class PyFanout {
 public:
  PyFanout(std::shared_ptr<Pollers> pollers, FanoutOptions options) {
    Check(Fanout::Create(std::move(pollers), std::move(options), &fanout_));
    std::lock_guard<std::mutex> lock(LiveMutex());
    Live().insert(this);
  }

  // Requires the GIL, which is released meanwhile.
  ~PyFanout() {
    {
      std::lock_guard<std::mutex> lock(LiveMutex());
      Live().erase(this);
    }
    py::gil_scoped_release release;
    if (fanout_ != nullptr) fanout_->Stop();
    fanout_.reset();
  }

  std::unique_ptr<PyRoute> MakeRoute(std::string model, int64_t version, uint64_t epoch,
                                     const py::bytes& package_digest, const std::vector<TargetSpec>& targets,
                                     std::vector<std::vector<uint32_t>> slots, const std::vector<TableSpec>& tables,
                                     bool trace) {
    RouteSpec spec;
    spec.model = std::move(model);
    spec.version = version;
    spec.epoch = epoch;
    spec.package_digest = package_digest;
    spec.targets = targets;
    spec.slots = std::move(slots);
    spec.tables = tables;
    if (trace) spec.trace = std::make_shared<LookupTrace>();
    const std::shared_ptr<LookupTrace> kept = spec.trace;
    Ref<TesseraRoute> route;
    Status status;
    {
      py::gil_scoped_release release;
      status = fanout_->MakeRoute(std::move(spec), &route);
    }
    Check(status);
    return std::make_unique<PyRoute>(std::move(route), kept);
  }

  py::dict Stats() const {
    const FanoutStats stats = fanout_->Stats();
    py::dict result;
    result["lookups"] = stats.lookups;
    result["subrequests"] = stats.subrequests;
    result["rpcs"] = stats.rpcs;
    result["merged"] = stats.merged;
    result["retries"] = stats.retries;
    result["hedges"] = stats.hedges;
    result["failures"] = stats.failures;
    result["ejections"] = stats.ejections;
    py::dict servers;
    for (const auto& [id, server] : stats.servers) {
      py::dict one;
      one["subrequests"] = server.subrequests;
      one["rpcs"] = server.rpcs;
      one["failures"] = server.failures;
      one["in_flight"] = server.in_flight;
      one["suspect"] = server.suspect;
      one["ejected"] = server.ejected;
      one["avoided"] = server.avoided;
      one["ejections"] = server.ejections;
      servers[py::str(id)] = one;
    }
    result["servers"] = servers;
    result["newest_epochs"] = stats.newest_epochs;
    result["oldest_epochs"] = stats.oldest_epochs;
    return result;
  }

  py::dict NewestPlacements() const {
    py::dict result;
    for (const auto& [model, document] : fanout_->NewestPlacements()) result[py::str(model)] = py::bytes(document);
    return result;
  }

  int64_t PlacementsTold() const { return fanout_->placements_told(); }
  void Avoid(std::set<std::string> server_ids) { fanout_->Avoid(std::move(server_ids)); }
  void Stop() { fanout_->Stop(); }

  // As Server's: nothing may run when the interpreter goes away. Runs before the servers stop.
  static void StopAll() {
    std::set<PyFanout*> live;
    {
      std::lock_guard<std::mutex> lock(LiveMutex());
      live = Live();
    }
    py::gil_scoped_release release;
    for (PyFanout* fanout : live) fanout->Stop();
  }

 private:
  static std::set<PyFanout*>& Live() {
    static auto* live = new std::set<PyFanout*>();  // never destroyed: threads may outlive static destructors
    return *live;
  }
  static std::mutex& LiveMutex() {
    static auto* mutex = new std::mutex();
    return *mutex;
  }

  std::shared_ptr<Fanout> fanout_;
};

}  // namespace

void BindFanout(py::module_& module) {
  py::class_<TargetSpec>(module, "Target")
      .def(py::init([](std::string server_id, std::string address, std::shared_ptr<TableStore> store) {
             return TargetSpec{std::move(server_id), std::move(address), std::move(store)};
           }),
           py::kw_only(), py::arg("server_id"), py::arg("address") = "", py::arg("store") = nullptr);

  py::class_<TableSpec>(module, "RoutedTable")
      .def(py::init([](std::string name, int64_t rows, int64_t row_bytes, uint64_t buckets) {
             return TableSpec{std::move(name), rows, row_bytes, buckets};
           }),
           py::kw_only(), py::arg("name"), py::arg("rows"), py::arg("row_bytes"), py::arg("buckets"));

  py::class_<PyRoute>(module, "Route").def("capsule", &PyRoute::MakeCapsule).def("trace", &PyRoute::Trace);

  py::class_<PyFanout>(module, "Fanout")
      .def(py::init([](const py::object& server, double retry_delay_s, uint32_t retry_budget_tokens,
                       size_t max_message_bytes, uint32_t max_in_flight_lookups_per_server, int pollers,
                       std::string tls_root_ca_file, std::string tls_certificate_file, std::string tls_private_key_file,
                       double tls_poll_s) {
             FanoutOptions options;
             options.retry_delay_ns = static_cast<int64_t>(retry_delay_s * 1e9);
             options.retry_budget_tokens = retry_budget_tokens;
             options.max_message_bytes = max_message_bytes;
             options.max_in_flight_lookups_per_server = max_in_flight_lookups_per_server;
             options.tls_root_ca_file = std::move(tls_root_ca_file);
             options.tls_certificate_file = std::move(tls_certificate_file);
             options.tls_private_key_file = std::move(tls_private_key_file);
             options.tls_poll_s = tls_poll_s;
             return std::make_unique<PyFanout>(server.is_none() ? OwnPollers(pollers) : PollersOf(server),
                                               std::move(options));
           }),
           py::arg("server") = py::none(), py::kw_only(), py::arg("retry_delay_s") = 0.05,
           py::arg("retry_budget_tokens") = 1024, py::arg("max_message_bytes") = size_t{256} << 20,
           py::arg("max_in_flight_lookups_per_server") = 2, py::arg("pollers") = 1, py::arg("tls_root_ca_file") = "",
           py::arg("tls_certificate_file") = "", py::arg("tls_private_key_file") = "", py::arg("tls_poll_s") = 0.0,
           py::keep_alive<1, 2>())
      .def("route", &PyFanout::MakeRoute, py::kw_only(), py::arg("model"), py::arg("version"), py::arg("epoch"),
           py::arg("package_digest"), py::arg("targets"), py::arg("slots"), py::arg("tables"), py::arg("trace") = false)
      .def("capsule",
           [](const PyFanout&) {
             return py::capsule(const_cast<TesseraFanoutApi*>(FanoutApi()), TESSERA_FANOUT_CAPSULE);
           })
      .def("stats", &PyFanout::Stats)
      .def("newest_placements", &PyFanout::NewestPlacements)
      .def_property_readonly("placements_told", &PyFanout::PlacementsTold)
      .def("avoid", &PyFanout::Avoid, py::arg("server_ids"))
      .def("stop", &PyFanout::Stop, py::call_guard<py::gil_scoped_release>());
  py::module_::import("atexit").attr("register")(py::cpp_function(&PyFanout::StopAll));
}

}  // namespace tessera
