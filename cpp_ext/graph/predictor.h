// Answers Predict: resolves, decodes, runs, encodes. The one class that a
// server needs of this layer.
#ifndef TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_
#define TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/snapshot.h"

namespace tessera {

class PredictCall;

struct PredictorStats {
  uint64_t requests = 0;
  std::array<uint64_t, 17> errors = {};  // by status code
  int64_t in_flight = 0;
};

// Thread-safe. Must outlive the server that calls its handler; the destructor
// waits for calls that have answered but not yet cleaned up.
class Predictor {
 public:
  // `max_in_flight` ≥ 1: more requests at once are refused with
  // RESOURCE_EXHAUSTED. `tensor_content`: answer with `tensor_content` instead
  // of typed fields.
  Predictor(int64_t max_in_flight, bool tensor_content);
  ~Predictor();
  Predictor(const Predictor&) = delete;
  Predictor& operator=(const Predictor&) = delete;

  void Publish(std::shared_ptr<const Snapshot> snapshot) { snapshot_.Replace(std::move(snapshot)); }
  std::shared_ptr<const Snapshot> snapshot() const { return snapshot_.Get(); }
  // Lives as long as the predictor.
  TesseraHandler* handler() { return &handler_; }
  PredictorStats stats() const;

 private:
  friend class PredictCall;
  static void Handle(void* context, const TesseraCallApi* api, TesseraCall* call);
  PredictCall* TakeCall();
  void GiveBack(PredictCall* call);

  const int64_t max_in_flight_;
  const bool tensor_content_;
  TesseraHandler handler_;
  CurrentSnapshot snapshot_;
  std::atomic<uint64_t> requests_{0};
  std::array<std::atomic<uint64_t>, 17> errors_ = {};
  std::atomic<int64_t> in_flight_{0};
  std::mutex mu_;
  std::condition_variable all_free_;
  std::vector<std::unique_ptr<PredictCall>> calls_;  // guarded by mu_
  std::vector<PredictCall*> free_;                   // guarded by mu_
  bool closing_ = false;                             // guarded by mu_
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PREDICTOR_H_
