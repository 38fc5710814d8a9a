// Answers REST predict, classify and regress: JSON → a call to the same handlers that gRPC calls → JSON.
#ifndef TESSERA_CPP_EXT_GRAPH_REST_ENGINE_H_
#define TESSERA_CPP_EXT_GRAPH_REST_ENGINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/answer_hook.h"

namespace tessera {

class Predictor;
class RestCall;
class RestState;

struct RestRequest {
  Method method = Method::kPredict;  // not kMultiInference, which REST does not have
  std::string model;
  std::optional<int64_t> version;  // at most one of version and label
  std::optional<std::string> label;
  std::string body;                                          // JSON
  std::map<std::string, std::string, std::less<>> metadata;  // headers, keys in lower case
  int64_t deadline_ns = TESSERA_NO_DEADLINE;
};

// `body` is JSON with any code: {"error": …} unless it is 0.
struct RestAnswer {
  uint64_t token = 0;
  int code = 0;
  std::string body;
};

struct RestOptions {
  size_t threads = 2;
  size_t max_in_flight = 4096;
  // Requests that are expected to hold a thread for less are run by the thread that starts them.
  int64_t inline_budget_ns = 200'000;
};

// Thread-safe. The destructor is as `Stop`.
class RestEngine {
 public:
  // INTERNAL: no eventfd, for want of file descriptors.
  static absl::StatusOr<std::unique_ptr<RestEngine>> Make(std::shared_ptr<Predictor> predictor,
                                                          const RestOptions& options);
  ~RestEngine();

  // Starts one request. Returns 0 when it has ended already, with its `answer`; otherwise a token that `Take` gives
  // back with the answer. Work of up to the inline budget happens here.
  uint64_t Start(RestRequest request, RestAnswer* answer);
  // Asks for an early end; the answer comes nevertheless. Harmless afterwards.
  void Cancel(uint64_t token);
  // The answers that have come since the last call. `fd()` is readable while there are some.
  std::vector<RestAnswer> Take();
  int fd() const;

  size_t in_flight() const;
  // Cancels what is in flight and ends the threads; what a model still works on ends by itself, and is dropped.
  // Later requests are answered with UNAVAILABLE.
  void Stop();

 private:
  RestEngine() = default;

  std::shared_ptr<RestState> state_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REST_ENGINE_H_
