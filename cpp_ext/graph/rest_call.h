// One REST request from its body to its answer.
#ifndef TESSERA_CPP_EXT_GRAPH_REST_CALL_H_
#define TESSERA_CPP_EXT_GRAPH_REST_CALL_H_

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/base/status.h"
#include "cpp_ext/graph/json_decode.h"
#include "cpp_ext/graph/local_call.h"
#include "cpp_ext/graph/request_stats.h"
#include "cpp_ext/graph/rest_cost.h"
#include "cpp_ext/graph/rest_engine.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {

class RestState;

// Thread-safe. Kept alive by whoever works on it.
class RestCall : public std::enable_shared_from_this<RestCall> {
 public:
  RestCall(std::shared_ptr<RestState> state, RestRequest request);

  // Works on the calling thread until the request has ended or waits; never blocks. To be called once, before
  // `Detach`.
  void Run();
  // Whether the request has ended; `answer` is its answer then.
  bool TakeAnswer(RestAnswer* answer);
  // Declares that nobody waits on this stack: from now on the answer is posted under `token`. False when the request
  // has ended before; `answer` is its answer then.
  bool Detach(uint64_t token, RestAnswer* answer);
  // Runs on the pool, under `token`.
  void RunLater(uint64_t token);
  void Cancel();

  const RestCost& cost() const { return *cost_; }

 private:
  enum class Phase { kAttached, kDetached, kEnded };

  // Makes the message for the handler. OK: `wire_` can be sent.
  Status Encode();
  Status EncodePredict(const rapidjson::Document& document, absl::string_view signature);
  absl::Status Resolve(Pin* pin) const;
  bool IsCancelled();
  void Send();
  void OnDone(const absl::Status& status, absl::string_view response);
  // Whether a version that the client did not name has gone between its choice and the call.
  bool VersionHasGone(const absl::Status& status) const;
  void Answer(absl::string_view response);
  void Finish(const Status& status, std::string body);

  const std::shared_ptr<RestState> state_;
  const RestRequest request_;
  const int64_t start_ns_;
  RequestStats* const stats_;
  RestCost* const cost_;
  bool counted_ = false;  // the handler counts what reaches it
  int attempts_ = 0;
  Pin pin_;
  JsonFormat format_ = JsonFormat::kRow;
  std::string wire_;

  std::mutex mu_;
  bool cancelled_ = false;           // guarded by mu_
  bool ended_ = false;               // guarded by mu_
  std::shared_ptr<LocalCall> call_;  // guarded by mu_; null once the request has ended, as each keeps the other

  std::atomic<Phase> phase_{Phase::kAttached};
  uint64_t token_ = 0;  // written before the phase becomes kDetached
  RestAnswer answer_;   // written before the phase becomes kEnded
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REST_CALL_H_
