#include "cpp_ext/python/py_server.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>
#include <utility>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/clock.h"
#include "cpp_ext/python/status_caster.h"
#include "cpp_ext/table/lookup_message.h"

namespace py = pybind11;

namespace tessera {
namespace {

const TesseraHandler* CapsulePointer(const py::capsule& capsule) {
  if (capsule.name() == nullptr || std::string(capsule.name()) != TESSERA_HANDLER_CAPSULE) {
    Check(Status(Code::kInvalidArgument, "handler: expected a " TESSERA_HANDLER_CAPSULE " capsule"));
  }
  return capsule.get_pointer<const TesseraHandler>();
}

// A time that Python gave; what is not a number or negative is none, what is too long is a day.
int64_t Nanoseconds(double seconds) { return seconds > 0 ? static_cast<int64_t>(std::min(seconds, 86400.0) * 1e9) : 0; }

std::set<PyServer*>& Live() {
  static auto* live = new std::set<PyServer*>();  // never destroyed: threads may outlive static destructors
  return *live;
}
std::mutex& LiveMutex() {
  static auto* mutex = new std::mutex();
  return *mutex;
}

}  // namespace

PyServer::PyServer(ServerOptions options)
    : max_message_bytes_(options.max_message_bytes), parts_(std::make_unique<Parts>(std::move(options))) {
  parts_->queues.emplace_back();
  std::lock_guard<std::mutex> lock(LiveMutex());
  Live().insert(this);
}

PyServer::~PyServer() {
  {
    std::lock_guard<std::mutex> lock(LiveMutex());
    Live().erase(this);
  }
  py::gil_scoped_release release;
  StopOrSay();
  if (parts_ != nullptr) {
    py::gil_scoped_acquire acquire;  // for the functions and capsules
    parts_.reset();
  }
}

void PyServer::ServeTables(std::shared_ptr<TableStore> store) {
  parts_->server.AcceptFrequentPings();
  parts_->table_handlers.push_back(std::make_unique<TableHandler>(std::move(store), max_message_bytes_));
  Check(parts_->server.Add(kLookupMethod, parts_->table_handlers.back()->handler(), {/*cancellable=*/false}));
}

void PyServer::ServeNative(const std::string& method, py::capsule handler) {
  Check(parts_->server.Add(method, CapsulePointer(handler)));
  parts_->capsules.push_back(std::move(handler));
}

QueuedMethods::Answer PyServer::AnswerOf(py::function function) {
  parts_->functions.push_back(std::move(function));
  const py::function& kept = parts_->functions.back();
  return [&kept](std::string_view request, std::string* response) {
    py::gil_scoped_acquire acquire;
    try {
      *response = kept(py::bytes(request.data(), request.size())).cast<std::string>();
      return Status();
    } catch (const py::error_already_set& error) {
      return StatusOf(error);
    } catch (const py::cast_error&) {
      return Status(Code::kInternal, "the handler did not return bytes");
    }
  };
}

void PyServer::ServePython(const std::string& method, py::function function, bool own_thread) {
  QueuedMethods& queue = own_thread ? parts_->queues.emplace_back() : parts_->queues.front();
  Check(parts_->server.Add(method, queue.Add(AnswerOf(std::move(function)))));
}

void PyServer::ServePythonStream(const std::string& method, py::function function) {
  StreamHandler* const handler = parts_->queues.front().AddStream(AnswerOf(std::move(function)));
  Check(parts_->server.AddStream(method, handler, kMaxPythonStreams));
}

void PyServer::ServeHealth(std::shared_ptr<HealthService> health) {
  Check(parts_->server.Add(kHealthCheckMethod, health->check_handler(), {/*cancellable=*/false, /*urgent=*/true}));
  Check(parts_->server.AddStream(kHealthWatchMethod, health->watch_handler(), HealthService::kMaxWatchers));
  parts_->health = std::move(health);
}

int PyServer::Start() {
  std::vector<int> ports;
  Status status;
  {
    py::gil_scoped_release release;
    status = parts_->server.Start(&ports);
  }
  Check(status);
  std::lock_guard<std::mutex> lock(ports_mutex_);
  ports_ = std::move(ports);
  return ports_.front();
}

void PyServer::SetCertificates(TlsTexts tls) { Check(parts_->server.SetCertificates(std::move(tls))); }

std::vector<int> PyServer::Ports() const {
  std::lock_guard<std::mutex> lock(ports_mutex_);
  return ports_;
}

py::dict PyServer::Stats() const {
  const ServerStats stats = parts_->server.Stats();
  py::dict result;
  result["calls_started"] = stats.calls_started;
  result["calls_finished"] = stats.calls_finished;
  result["calls_in_flight"] = stats.calls_in_flight;
  result["calls_failed"] = stats.calls_failed;
  result["calls_refused"] = stats.calls_refused;
  return result;
}

bool PyServer::Drain(double timeout_s) {
  if (parts_->health != nullptr) parts_->health->Drain();
  return parts_->server.Drain(Nanoseconds(timeout_s));
}

Status PyServer::StopWithin(int64_t timeout_ns) {
  const int64_t end_ns = MonotonicNs() + timeout_ns;
  Drain(0);
  bool have_ended = true;
  for (QueuedMethods& queue : parts_->queues) {
    have_ended &= queue.Stop(std::max<int64_t>(0, end_ns - MonotonicNs()));
  }
  if (Status status = parts_->server.Stop(std::max<int64_t>(0, end_ns - MonotonicNs())); !status.ok()) return status;
  if (have_ended) return Status();
  return Status(Code::kDeadlineExceeded, "stopping the server: a Python method has not returned");
}

void PyServer::Stop(double timeout_s) {
  const Status status = StopWithin(Nanoseconds(timeout_s));
  if (status.ok()) return;
  py::gil_scoped_acquire acquire;
  Check(status);
}

void PyServer::StopOrSay() {
  const Status status = StopWithin(Server::kStopTimeoutNs);
  if (status.ok()) return;
  std::fprintf(stderr, "tessera: %s; they keep their memory and threads\n", status.message().c_str());
  static_cast<void>(parts_.release());  // what has not ended may still use it
}

void PyServer::StopAll() {
  std::set<PyServer*> live;
  {
    std::lock_guard<std::mutex> lock(LiveMutex());
    live = Live();
  }
  py::gil_scoped_release release;
  for (PyServer* server : live) {
    const Status status = server->StopWithin(Server::kStopTimeoutNs);
    if (!status.ok()) std::fprintf(stderr, "tessera: %s\n", status.message().c_str());
  }
}

}  // namespace tessera
