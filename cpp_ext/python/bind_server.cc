#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cpp_ext/python/bind_rpc.h"
#include "cpp_ext/python/py_server.h"
#include "cpp_ext/python/status_caster.h"

namespace py = pybind11;

namespace tessera {
namespace {

using ChannelArguments = std::map<std::string, std::variant<int, std::string>>;

std::unique_ptr<PyServer> MakeServer(const std::string& address, const std::vector<std::string>& addresses,
                                     const std::vector<std::string>& plain_addresses, int pollers,
                                     int max_message_bytes, int64_t max_concurrent_calls, double default_deadline_s,
                                     double busy_poll_s, const ChannelArguments& channel_arguments,
                                     const py::bytes& tls_certificate, const py::bytes& tls_private_key,
                                     const py::bytes& tls_client_ca) {
  ServerOptions options;
  // An empty address among others is none; alone it is a mistake, which the server names.
  if (!address.empty() || (addresses.empty() && plain_addresses.empty())) options.listen.push_back({address, false});
  for (const std::string& one : addresses) options.listen.push_back({one, false});
  for (const std::string& one : plain_addresses) options.listen.push_back({one, true});
  options.pollers = pollers;
  options.max_message_bytes = max_message_bytes;
  options.max_concurrent_calls = max_concurrent_calls;
  options.default_deadline_ns = static_cast<int64_t>(default_deadline_s * 1e9);
  options.busy_poll_ns = static_cast<int64_t>(busy_poll_s * 1e9);
  options.channel_arguments.assign(channel_arguments.begin(), channel_arguments.end());
  options.tls = {tls_certificate, tls_private_key, tls_client_ca};
  return std::make_unique<PyServer>(std::move(options));
}

void SetHealth(HealthService& health, const std::string& service, int status) {
  if (status < 0 || status > 2) {
    Check(Status(Code::kInvalidArgument, "status of \"" + service + "\": got " + std::to_string(status) +
                                             ", expected 0 (UNKNOWN), 1 (SERVING) or 2 (NOT_SERVING)"));
  }
  health.Set(service, static_cast<HealthService::Serving>(status));
}

}  // namespace

std::shared_ptr<Pollers> PollersOf(const py::handle& server) { return server.cast<PyServer&>().pollers(); }

void BindServer(py::module_& module) {
  py::class_<HealthService, std::shared_ptr<HealthService>>(module, "Health")
      .def(py::init<>())
      .def("set", &SetHealth, py::arg("service"), py::arg("status"))
      .def("drain", &HealthService::Drain);
  py::class_<PyServer>(module, "Server")
      .def(py::init(&MakeServer), py::kw_only(), py::arg("address") = "",
           py::arg("addresses") = std::vector<std::string>(), py::arg("plain_addresses") = std::vector<std::string>(),
           py::arg("pollers") = 0, py::arg("max_message_bytes") = 256 << 20, py::arg("max_concurrent_calls") = 4096,
           py::arg("default_deadline_s") = 30.0, py::arg("busy_poll_s") = 0.0,
           py::arg("channel_arguments") = ChannelArguments(), py::arg("tls_certificate") = py::bytes(),
           py::arg("tls_private_key") = py::bytes(), py::arg("tls_client_ca") = py::bytes())
      .def("serve_tables", &PyServer::ServeTables, py::arg("store"))
      .def("serve_native", &PyServer::ServeNative, py::arg("method"), py::arg("handler"))
      .def("serve_python", &PyServer::ServePython, py::arg("method"), py::arg("handler"), py::kw_only(),
           py::arg("own_thread") = false)
      .def("serve_python_stream", &PyServer::ServePythonStream, py::arg("method"), py::arg("handler"))
      .def("serve_health", &PyServer::ServeHealth, py::arg("health"))
      .def("start", &PyServer::Start)
      .def(
          "set_certificates",
          [](PyServer& server, const py::bytes& certificate, const py::bytes& private_key, const py::bytes& client_ca) {
            server.SetCertificates({certificate, private_key, client_ca});
          },
          py::kw_only(), py::arg("tls_certificate"), py::arg("tls_private_key"), py::arg("tls_client_ca") = py::bytes())
      .def_property_readonly("ports", &PyServer::Ports)
      .def("drain", &PyServer::Drain, py::arg("timeout_s"), py::call_guard<py::gil_scoped_release>())
      .def("stop", &PyServer::Stop, py::arg("timeout_s") = 30.0, py::call_guard<py::gil_scoped_release>())
      .def("stats", &PyServer::Stats);
  py::module_::import("atexit").attr("register")(py::cpp_function(&PyServer::StopAll));
}

}  // namespace tessera
