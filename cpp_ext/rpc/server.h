// An asynchronous gRPC server: each unary call goes to a TesseraHandler on the poller thread that took it; the messages
// of the few methods that are streams go to a StreamHandler.
//
// Messages stay bytes; nothing here knows protobuf. Life: construct, Add…, Start, Drain or Stop.
// Thread-safety: Add and Start on one thread; the rest from any thread, but not from a poller.
#ifndef TESSERA_CPP_EXT_RPC_SERVER_H_
#define TESSERA_CPP_EXT_RPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/rpc/certificates.h"
#include "cpp_ext/rpc/listen.h"
#include "cpp_ext/rpc/poller.h"
#include "cpp_ext/rpc/server_call.h"
#include "cpp_ext/rpc/server_stream.h"

namespace tessera {

struct ServerOptions {
  // At least one.
  std::vector<ListenAddress> listen;
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
  TlsTexts tls;
  // gRPC's arguments by name ("grpc.keepalive_time_ms"); they win over what the options above set. A name that gRPC
  // does not know has no effect.
  std::vector<std::pair<std::string, std::variant<int, std::string>>> channel_arguments;
  // Callers are routers that ping idle connections to notice a dead peer. gRPC's defaults, which are right for
  // strangers, would end such connections.
  bool accept_frequent_pings = false;
};

// Streams count as started and finished, not as in flight.
struct ServerStats {
  int64_t calls_started = 0;
  int64_t calls_finished = 0;
  int64_t calls_in_flight = 0;
  // Ended with another code than OK, refused ones included.
  int64_t calls_failed = 0;
  // While draining, or because there were too many.
  int64_t calls_refused = 0;
};

class Server {
 public:
  explicit Server(ServerOptions options);
  // Stops. What has not ended by then keeps its memory and threads until the process ends.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Answers `method` ("/package.Service/Method") by `handler`, which must outlive the server.
  Status Add(const std::string& method, const TesseraHandler* handler, MethodTraits traits = {});

  // Answers the streams of `method` by `handler`, which must outlive the server; those above `max_streams` are refused
  // with RESOURCE_EXHAUSTED.
  Status AddStream(const std::string& method, StreamHandler* handler, size_t max_streams);

  // Applies from Start on. REQUIRES: before Start.
  void AcceptFrequentPings();

  // Binds and serves. `ports` gets the bound port of each address, 0 for a Unix socket, whose file is taken over from a
  // process that has died.
  // UNAVAILABLE: an address cannot be bound, names it; INVALID_ARGUMENT: an option is wrong, names it;
  // FAILED_PRECONDITION: called before, whatever came of it, or after Stop.
  Status Start(std::vector<int>* ports);

  // Shows these to callers that connect from now on; connections that are there go on. From any thread.
  // INVALID_ARGUMENT, FAILED_PRECONDITION: as ServerCertificates::Set, or before Start; nothing has changed.
  Status SetCertificates(TlsTexts tls);

  // Refuses new calls, ends the streams, waits at most `timeout_ns` for the calls in flight, then cancels them. Returns
  // whether none was cancelled; a further call returns the same.
  bool Drain(int64_t timeout_ns);

  // Drains without waiting, waits at most `timeout_ns` until the handlers have ended the calls that were cancelled, and
  // joins the pollers. May be called again. REQUIRES: nothing else uses the pollers.
  // DEADLINE_EXCEEDED: some have not; names their methods. The pollers go on then.
  Status Stop(int64_t timeout_ns = kStopTimeoutNs);
  static constexpr int64_t kStopTimeoutNs = 30'000'000'000;

  // The threads of this server, for clients that want to share them. They run from Start on.
  const std::shared_ptr<Pollers>& pollers() const;

  ServerStats Stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_SERVER_H_
