// One Predict request from decoding to the answer.
#ifndef TESSERA_CPP_EXT_GRAPH_PREDICT_CALL_H_
#define TESSERA_CPP_EXT_GRAPH_PREDICT_CALL_H_

#include <atomic>

#include "absl/container/inlined_vector.h"
#include "cpp_ext/base/abi.h"
#include "cpp_ext/graph/predict_message.h"
#include "cpp_ext/graph/snapshot.h"
#include "cpp_ext/graph/step.h"

namespace tessera {

class Predictor;

// Reused by one request after the other. Kept by the request itself and by a
// cancellation that is on its way; the last of them gives it back to the
// predictor.
class PredictCall {
 public:
  explicit PredictCall(Predictor* predictor) : predictor_(predictor) {}

  // Ends in exactly one `api->finish`, during this call or later.
  void Start(const TesseraCallApi* api, TesseraCall* call);

 private:
  // Everything up to the execution: on OK the step is ready to run.
  absl::Status Prepare();
  absl::Status DecodeInputs(const Signature& signature);
  static void OnCancel(void* arg);
  static void OnStepDone(void* arg, absl::Status status);
  absl::Status Encode(EncodedResponse* response);
  void Finish(const absl::Status& status, EncodedResponse response);
  void Unref();

  Predictor* const predictor_;
  std::atomic<int> references_{0};
  const TesseraCallApi* api_ = nullptr;
  TesseraCall* call_ = nullptr;
  int64_t deadline_ns_ = 0;
  PredictRequestView request_;
  Pin pin_;
  const Runnable* runnable_ = nullptr;
  absl::InlinedVector<const SignatureOutput*, 4> outputs_;
  Step step_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PREDICT_CALL_H_
