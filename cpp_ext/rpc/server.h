// An asynchronous gRPC server of unary methods: each call goes to a TesseraHandler on the poller thread that took it.
//
// Messages stay bytes; nothing here knows protobuf. Life: construct, Add…, Start, Drain or Stop.
// Thread-safety: Add and Start on one thread; the rest from any thread, but not from a poller.
#ifndef TESSERA_CPP_EXT_RPC_SERVER_H_
#define TESSERA_CPP_EXT_RPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/poller.h"

namespace tessera {

struct ServerOptions {
  // host:port, where port 0 takes any free one, or unix:path.
  std::string address;
  // Threads and completion queues; 0: one per core.
  int pollers = 0;
  // Larger messages end their call with RESOURCE_EXHAUSTED, in both directions.
  int max_message_bytes = 256 << 20;
  // Calls above this are refused with RESOURCE_EXHAUSTED at once.
  int64_t max_concurrent_calls = 4096;
  // How long a poller looks for the answers of other servers before it sleeps; 0: not at all. Shortens requests that
  // wait for other servers, and costs the CPU time that the core would have slept.
  int64_t busy_poll_ns = 0;
  // For calls that come without a deadline.
  int64_t default_deadline_ns = 30'000'000'000;
  // PEM. A certificate turns TLS on; a client CA also demands a certificate from callers.
  std::string tls_certificate;
  std::string tls_private_key;
  std::string tls_client_ca;
  // Callers are routers that ping idle connections to notice a dead peer. gRPC's defaults, which are right for
  // strangers, would end such connections.
  bool accept_frequent_pings = false;
};

struct ServerStats {
  int64_t calls_started = 0;
  int64_t calls_finished = 0;
  int64_t calls_in_flight = 0;
  // Ended with another code than OK, refused ones included.
  int64_t calls_failed = 0;
  int64_t calls_refused = 0;
};

class Server {
 public:
  explicit Server(ServerOptions options);
  // Stops.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Answers `method` ("/package.Service/Method") by `handler`, which must outlive the server. A handler that always
  // finishes before it returns needs no word of cancellations: without `cancellable` a call is cheaper.
  Status Add(const std::string& method, const TesseraHandler* handler, bool cancellable = true);

  // Applies from Start on. REQUIRES: before Start.
  void AcceptFrequentPings();

  // Binds and serves. `port` gets the bound port, 0 for a Unix socket.
  // UNAVAILABLE: the address cannot be bound; INVALID_ARGUMENT: the address is malformed, a PEM without its partner;
  // FAILED_PRECONDITION: called before, whatever came of it, or after Stop.
  Status Start(int* port);

  // Refuses new calls, waits at most `timeout_ns` for those in flight, then cancels them. Returns whether none was
  // cancelled; a further call returns the same.
  bool Drain(int64_t timeout_ns);

  // Drains without waiting, waits until the handlers have ended the calls that were cancelled, and joins the pollers.
  // May be called twice. REQUIRES: nothing else uses the pollers.
  void Stop();

  // The threads of this server, for clients that want to share them. They run from Start on.
  const std::shared_ptr<Pollers>& pollers() const;

  ServerStats Stats() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SERVER_H_
