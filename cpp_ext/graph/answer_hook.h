// Something that looks at answered requests: a log, a comparison with another version.
#ifndef TESSERA_CPP_EXT_GRAPH_ANSWER_HOOK_H_
#define TESSERA_CPP_EXT_GRAPH_ANSWER_HOOK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tessera {

class ServedVersion;

// The methods of PredictionService that run a model.
enum class Method { kPredict, kClassify, kRegress, kMultiInference };

// Valid during the call of the hook only.
struct AnsweredRequest {
  Method method;
  const ServedVersion* version;
  absl::string_view request;   // as it came
  const absl::Status* status;  // of the answer
  absl::string_view response;  // empty unless the status is OK
};

// Thread-safe; never blocks: it runs on the thread that ends the request, before the answer is sent.
class AnswerHook {
 public:
  virtual ~AnswerHook() = default;
  virtual void OnAnswer(const AnsweredRequest& answered) = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_ANSWER_HOOK_H_
