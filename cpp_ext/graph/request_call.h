// One request from decoding to the answer, whatever its method.
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_CALL_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_CALL_H_

#include <atomic>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/request_stats.h"
#include "cpp_ext/graph/request_work.h"
#include "cpp_ext/graph/restarts.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/step.h"

namespace tessera {

class Predictor;

// Reused by one request after the other. Kept by the request itself and by a
// cancellation that is on its way; the last of them gives it back to the
// predictor.
//
// A request that fails because servers have moved on to a newer placement drops all it had, waits until that placement
// is published here, and runs again as a whole: never a part of it, so that nothing is mixed.
class RequestCall final : private Restarts::Waiter {
 public:
  explicit RequestCall(Predictor* predictor);

  // Ends in exactly one `api->finish`, during this call or later.
  void Start(Method method, const TesseraCallApi* api, TesseraCall* call);

 private:
  // Everything up to the execution: on OK the step is ready to run.
  absl::Status Prepare();
  absl::Status Resolve();
  // What came with the request under `key`; empty if nothing did.
  absl::string_view Metadata(absl::string_view key) const;
  // What the step needs beside its inputs to run `work_.runnable()`.
  absl::Status PrepareStep();
  void Run();
  static void OnCancel(void* arg);
  static void OnStepDone(void* arg, absl::Status status);
  // Whether `status`, with which a run has ended, is due to an outdated placement, and there is time for another run.
  bool IsOutdated(const absl::Status& status) const;
  void AwaitNewer(absl::Status status);
  // Runs the request again if there is a newer placement by now.
  void OnWoken() override;
  void Finish(const absl::Status& status, EncodedResponse response);
  void Observe(const absl::Status& status, const EncodedResponse& response);
  void Unref();

  Predictor* const predictor_;
  std::atomic<int> references_{0};
  Method method_ = Method::kPredict;
  const TesseraCallApi* api_ = nullptr;
  TesseraCall* call_ = nullptr;
  Entrypoint entrypoint_ = Entrypoint::kInternal;
  RequestStats* stats_ = nullptr;  // of the model that was asked for
  RequestTimes times_;
  int64_t deadline_ns_ = 0;
  absl::string_view message_;
  RequestView request_;
  Pin pin_;
  size_t runs_again_ = 0;
  absl::Status outdated_;  // with which the last run failed, while a newer placement is awaited
  int64_t await_until_ns_ = 0;
  std::atomic<bool> cancelled_{false};
  RequestWork work_;
  Step step_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_CALL_H_
