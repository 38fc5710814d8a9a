// The server that Python sees, and what has to live as long as it: handlers, Python functions and their threads.
//
// Thread-safety: as Server. The GIL is required unless a method says otherwise.
#ifndef TESSERA_CPP_EXT_PYTHON_PY_SERVER_H_
#define TESSERA_CPP_EXT_PYTHON_PY_SERVER_H_

#include <pybind11/functional.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/health.h"
#include "cpp_ext/rpc/queued_methods.h"
#include "cpp_ext/rpc/server.h"
#include "cpp_ext/table/table_handler.h"
#include "cpp_ext/table/table_store.h"

namespace tessera {

class PyServer {
 public:
  // Streams of one method that Python answers; more are refused.
  static constexpr size_t kMaxPythonStreams = 128;

  explicit PyServer(ServerOptions options);
  // Stops; releases the GIL meanwhile. What does not end in time is kept for good, and said on stderr.
  ~PyServer();
  PyServer(const PyServer&) = delete;
  PyServer& operator=(const PyServer&) = delete;

  void ServeTables(std::shared_ptr<TableStore> store);
  void ServeNative(const std::string& method, pybind11::capsule handler);
  void ServePython(const std::string& method, pybind11::function function, bool own_thread);
  void ServePythonStream(const std::string& method, pybind11::function function);
  void ServeHealth(std::shared_ptr<HealthService> health);

  void SetCertificates(TlsTexts tls);

  // The port of the first address.
  int Start();
  std::vector<int> Ports() const;
  pybind11::dict Stats() const;
  const std::shared_ptr<Pollers>& pollers() const { return parts_->server.pollers(); }

  // These must be called without the GIL: Python methods that end meanwhile need it.
  bool Drain(double timeout_s);
  // Raises DeadlineExceededError (with the GIL taken) if something has not ended.
  void Stop(double timeout_s);

  // Stops every server that is still alive, so that no thread asks for the GIL of an interpreter that is going away.
  static void StopAll();

 private:
  // Everything that a call in progress may use.
  struct Parts {
    explicit Parts(ServerOptions options) : server(std::move(options)) {}
    std::vector<pybind11::capsule> capsules;
    std::list<pybind11::function> functions;
    std::vector<std::unique_ptr<TableHandler>> table_handlers;
    std::shared_ptr<HealthService> health;
    std::list<QueuedMethods> queues;  // the first is shared
    Server server;
  };

  QueuedMethods::Answer AnswerOf(pybind11::function function);
  Status StopWithin(int64_t timeout_ns);
  void StopOrSay();

  const int max_message_bytes_;
  mutable std::mutex ports_mutex_;
  std::vector<int> ports_;  // guarded by ports_mutex_
  std::unique_ptr<Parts> parts_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_PY_SERVER_H_
