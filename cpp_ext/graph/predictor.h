// Answers the methods of PredictionService that run a model: resolves, decodes, runs, encodes. The one class that a
// server needs of this layer.
#ifndef TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_
#define TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/request_stats.h"
#include "cpp_ext/graph/request_work.h"
#include "cpp_ext/graph/restarts.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {

class RequestCall;

struct PredictorOptions {
  int64_t max_in_flight = 4096;  // ≥ 1; more requests at once are refused with RESOURCE_EXHAUSTED
  AnswerOptions answers;
};

struct PredictorStats {
  uint64_t requests = 0;
  std::array<uint64_t, kStatusCodes> errors = {};  // by status code
  int64_t in_flight = 0;
  uint64_t run_again = 0;      // after the placement that they had begun with was outdated
  int64_t awaiting_newer = 0;  // requests that wait for a newer placement, to be run again
};

// Thread-safe. Must outlive the server that calls its handlers; the destructor
// waits for calls that have answered but not yet cleaned up.
class Predictor {
 public:
  explicit Predictor(const PredictorOptions& options);
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  // Callers of what is refused for load are asked not to come again before.
  static constexpr int64_t kPushBackMs = 100;

  void Publish(std::shared_ptr<const Snapshot> snapshot) {
    snapshot_.Replace(std::move(snapshot));
    restarts_.WakeAll();
  }
  std::shared_ptr<const Snapshot> snapshot() const { return snapshot_.Get(); }
  // Lives as long as the predictor.
  TesseraHandler* handler(Method method) { return &methods_[static_cast<size_t>(method)].handler; }
  // All calls, those that this process made itself too.
  PredictorStats stats() const;
  // By model: the calls that came from outside. A snapshot's models get theirs here.
  RequestStatsRegistry& request_stats() { return registry_; }
  const RequestStatsRegistry& request_stats() const { return registry_; }

 private:
  friend class RequestCall;
  struct MethodHandler {
    TesseraHandler handler;
    Predictor* predictor;
    Method method;
  };

  static void Handle(void* context, const TesseraCallApi* api, TesseraCall* call);
  void Refuse(Method method, const TesseraCallApi* api, TesseraCall* call);
  RequestCall* TakeCall();
  void GiveBack(RequestCall* call);

  const PredictorOptions options_;
  std::array<MethodHandler, kMethods> methods_;
  RequestStatsRegistry registry_;
  CurrentSnapshot snapshot_;
  std::atomic<uint64_t> requests_{0};
  std::array<std::atomic<uint64_t>, kStatusCodes> errors_ = {};
  std::atomic<int64_t> in_flight_{0};
  std::atomic<uint64_t> run_again_{0};
  Restarts restarts_;
  std::mutex mu_;
  std::condition_variable all_free_;
  std::vector<std::unique_ptr<RequestCall>> calls_;  // guarded by mu_
  std::vector<RequestCall*> free_;                   // guarded by mu_
  bool closing_ = false;                             // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_
