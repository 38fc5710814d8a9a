// A call that this process makes itself, for REST, warm-up and shadowed traffic: to handlers it is one like those that
// come over gRPC, so that whatever holds for the one holds for the other.
#ifndef TESSERA_CPP_EXT_GRAPH_LOCAL_CALL_H_
#define TESSERA_CPP_EXT_GRAPH_LOCAL_CALL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/base/abi.h"

namespace tessera {

// Where a request came into this process. kInternal: this process made it for itself (warm-up, shadowed traffic); it is
// not counted as a request to a model, and no hook sees it.
enum class Entrypoint { kGrpc, kRest, kInternal };

struct LocalCallOptions {
  int64_t deadline_ns = TESSERA_NO_DEADLINE;                 // CLOCK_MONOTONIC
  std::map<std::string, std::string, std::less<>> metadata;  // keys in lower case
  Entrypoint entrypoint = Entrypoint::kInternal;
};

// Thread-safe.
class LocalCall {
 public:
  // `response` is the message, valid during the call; empty unless `status` is OK.
  using Done = std::function<void(const absl::Status& status, absl::string_view response)>;

  // Hands `request`, a serialized message, to `handler`, which must outlive the call. `done` runs exactly once, on any
  // thread, possibly before this returns, and may not block.
  static std::shared_ptr<LocalCall> Start(const TesseraHandler* handler, std::string request, LocalCallOptions options,
                                          Done done);

  // Where a call of any kind came in; nothing that a client sends can change it.
  static Entrypoint EntrypointOf(const TesseraCallApi* api, TesseraCall* call) {
    return api == &kApi ? Of(call)->options_.entrypoint : Entrypoint::kGrpc;
  }

  // As Start, and waits; cancels the call when its deadline passes. Not for threads that serve.
  static absl::Status CallAndWait(const TesseraHandler* handler, std::string request, LocalCallOptions options,
                                  std::string* response);

  // Asks for an early end with CANCELLED, as a client that goes away does. Harmless after the end.
  void Cancel();

 private:
  static const TesseraCallApi kApi;

  LocalCall(std::string request, LocalCallOptions options, Done done);
  static LocalCall* Of(TesseraCall* call) { return reinterpret_cast<LocalCall*>(call); }
  void NotifyOnCancel(void (*on_cancel)(void*), void* arg);
  void Finish(const absl::Status& status, absl::string_view response);

  const std::string request_;
  const LocalCallOptions options_;
  Done done_;
  std::shared_ptr<LocalCall> self_;  // until the end: the handler holds no reference
  std::mutex mu_;
  bool cancelled_ = false;              // guarded by mu_
  void (*on_cancel_)(void*) = nullptr;  // guarded by mu_
  void* on_cancel_arg_ = nullptr;       // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_LOCAL_CALL_H_
