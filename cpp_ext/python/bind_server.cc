#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/python/bind_rpc.h"
#include "cpp_ext/python/status_caster.h"
#include "cpp_ext/rpc/queued_methods.h"
#include "cpp_ext/rpc/server.h"
#include "cpp_ext/table/lookup_message.h"
#include "cpp_ext/table/table_handler.h"
#include "cpp_ext/table/table_store.h"

namespace py = pybind11;

namespace tessera {
namespace {

// A server, and what has to live as long as it.
class PyServer {
 public:
  PyServer(ServerOptions options) : max_message_bytes_(options.max_message_bytes), server_(std::move(options)) {
    std::lock_guard<std::mutex> lock(LiveMutex());
    Live().insert(this);
  }

  // Requires the GIL, which is released meanwhile.
  ~PyServer() {
    {
      std::lock_guard<std::mutex> lock(LiveMutex());
      Live().erase(this);
    }
    py::gil_scoped_release release;
    Stop();
  }

  void ServeTables(std::shared_ptr<TableStore> store) {
    server_.AcceptFrequentPings();
    table_handlers_.push_back(std::make_unique<TableHandler>(std::move(store), max_message_bytes_));
    Check(server_.Add(kLookupMethod, table_handlers_.back()->handler(), /*cancellable=*/false));
  }

  void ServeNative(const std::string& method, py::capsule handler) {
    Check(server_.Add(method, CapsulePointer(handler)));
    capsules_.push_back(std::move(handler));
  }

  void ServePython(const std::string& method, py::function function) {
    functions_.push_back(std::move(function));
    const py::function& kept = functions_.back();
    Check(server_.Add(method, methods_.Add([&kept](std::string_view request, std::string* response) {
      py::gil_scoped_acquire acquire;
      try {
        *response = kept(py::bytes(request.data(), request.size())).cast<std::string>();
        return Status();
      } catch (const py::error_already_set& error) {
        return StatusOf(error);
      } catch (const py::cast_error&) {
        return Status(Code::kInternal, "the handler did not return bytes");
      }
    })));
  }

  int Start() {
    int port = 0;
    Status status;
    {
      py::gil_scoped_release release;
      status = server_.Start(&port);
    }
    Check(status);
    return port;
  }

  // These must be called without the GIL: Python methods that end meanwhile need it.
  bool Drain(double timeout_s) { return server_.Drain(static_cast<int64_t>(timeout_s * 1e9)); }
  void Stop() {
    server_.Drain(0);
    methods_.Stop();
    server_.Stop();
  }

  py::dict Stats() const {
    const ServerStats stats = server_.Stats();
    py::dict result;
    result["calls_started"] = stats.calls_started;
    result["calls_finished"] = stats.calls_finished;
    result["calls_in_flight"] = stats.calls_in_flight;
    result["calls_failed"] = stats.calls_failed;
    result["calls_refused"] = stats.calls_refused;
    return result;
  }

  const std::shared_ptr<Pollers>& pollers() const { return server_.pollers(); }

  // Stops every server that is still alive, so that no thread asks for the GIL of an interpreter that is going away.
  static void StopAll() {
    std::set<PyServer*> live;
    {
      std::lock_guard<std::mutex> lock(LiveMutex());
      live = Live();
    }
    py::gil_scoped_release release;
    for (PyServer* server : live) server->Stop();
  }

 private:
  static const TesseraHandler* CapsulePointer(const py::capsule& capsule) {
    if (capsule.name() == nullptr || std::string(capsule.name()) != TESSERA_HANDLER_CAPSULE) {
      Check(Status(Code::kInvalidArgument, "handler: expected a " TESSERA_HANDLER_CAPSULE " capsule"));
    }
    return capsule.get_pointer<const TesseraHandler>();
  }

  static std::set<PyServer*>& Live() {
    static auto* live = new std::set<PyServer*>();  // never destroyed: threads may outlive static destructors
    return *live;
  }
  static std::mutex& LiveMutex() {
    static auto* mutex = new std::mutex();
    return *mutex;
  }

  const int max_message_bytes_;
  std::vector<py::capsule> capsules_;
  std::list<py::function> functions_;
  std::vector<std::unique_ptr<TableHandler>> table_handlers_;
  QueuedMethods methods_;
  Server server_;
};

}  // namespace

std::shared_ptr<Pollers> PollersOf(const py::handle& server) { return server.cast<PyServer&>().pollers(); }

void BindServer(py::module_& module) {
  py::class_<PyServer>(module, "Server")
      .def(py::init([](std::string address, int pollers, int max_message_bytes, int64_t max_concurrent_calls,
                       double default_deadline_s, double busy_poll_s, const py::bytes& tls_certificate,
                       const py::bytes& tls_private_key, const py::bytes& tls_client_ca) {
             ServerOptions options;
             options.address = std::move(address);
             options.pollers = pollers;
             options.max_message_bytes = max_message_bytes;
             options.max_concurrent_calls = max_concurrent_calls;
             options.default_deadline_ns = static_cast<int64_t>(default_deadline_s * 1e9);
             options.busy_poll_ns = static_cast<int64_t>(busy_poll_s * 1e9);
             options.tls_certificate = tls_certificate;
             options.tls_private_key = tls_private_key;
             options.tls_client_ca = tls_client_ca;
             return std::make_unique<PyServer>(std::move(options));
           }),
           py::kw_only(), py::arg("address"), py::arg("pollers") = 0, py::arg("max_message_bytes") = 256 << 20,
           py::arg("max_concurrent_calls") = 4096, py::arg("default_deadline_s") = 30.0, py::arg("busy_poll_s") = 0.0,
           py::arg("tls_certificate") = py::bytes(), py::arg("tls_private_key") = py::bytes(),
           py::arg("tls_client_ca") = py::bytes())
      .def("serve_tables", &PyServer::ServeTables, py::arg("store"))
      .def("serve_native", &PyServer::ServeNative, py::arg("method"), py::arg("handler"))
      .def("serve_python", &PyServer::ServePython, py::arg("method"), py::arg("handler"))
      .def("start", &PyServer::Start)
      .def("drain", &PyServer::Drain, py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>())
      .def("stop", &PyServer::Stop, py::call_guard<py::gil_scoped_release>())
      .def("stats", &PyServer::Stats);
  py::module_::import("atexit").attr("register")(py::cpp_function(&PyServer::StopAll));
}

}  // namespace tessera
