// How the fan-out reaches one server: over gRPC, inside the process, or a fake in tests.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_RPC_TRANSPORT_H_
#define TESSERA_CPP_EXT_RPC_TRANSPORT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

// The trailing metadata by which a server that refuses asks not to come again before so many milliseconds.
inline constexpr char kPushBackKey[] = "grpc-retry-pushback-ms";

// One Lookup call in progress. Dropping the handle does not cancel it.
class TransportCall {
 public:
  virtual ~TransportCall() = default;
  // Asks for an early end; `done` still runs, with whatever came first. Harmless after that.
  virtual void Cancel() = 0;
};

class Transport {
 public:
  // Runs exactly once, on any thread, possibly before `Start` returns. `response` is valid during the call.
  using Done = std::function<void(Status status, const uint8_t* response, size_t response_size)>;

  virtual ~Transport() = default;
  // Sends the serialized LookupRequest `request`. `deadline_ns` as in abi.h. Fails fast with UNAVAILABLE when the
  // server cannot be reached.
  virtual std::shared_ptr<TransportCall> Start(std::string request, int64_t deadline_ns, Done done) = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_TRANSPORT_H_
