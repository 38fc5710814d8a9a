// The requests of PredictionService that run a model, as views into their messages.
//
// Reading follows protobuf: a message field that occurs twice is merged, of a scalar and of a oneof the last occurrence
// counts, unknown fields are skipped. (Groups, which no field of these messages has ever been, are refused.)
#ifndef TESSERA_CPP_EXT_GRAPH_REQUEST_VIEW_H_
#define TESSERA_CPP_EXT_GRAPH_REQUEST_VIEW_H_

#include <cstdint>
#include <deque>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/graph/answer_hook.h"

namespace tessera {

constexpr absl::string_view kDefaultSignature = "serving_default";

// A ModelSpec.
struct ModelSpecView {
  enum class Choice { kLatest, kVersion, kLabel };

  bool has_model_spec = false;
  absl::string_view model;
  absl::string_view signature;  // empty: the default
  Choice choice = Choice::kLatest;
  int64_t version = 0;
  absl::string_view label;

  absl::string_view signature_or_default() const { return signature.empty() ? kDefaultSignature : signature; }
};

// What the methods' requests have between them; a method fills its part. The model spec is the first task's in a
// MultiInferenceRequest.
struct RequestView : ModelSpecView {
  struct Input {
    absl::string_view alias;
    absl::string_view tensor;  // a TensorProto
  };
  struct Task {
    ModelSpecView spec;
    absl::string_view method_name;
  };
  enum class Examples { kNone, kList, kListWithContext };

  // Predict.
  absl::InlinedVector<Input, 8> inputs;  // each alias once; the last value wins, as in a protobuf map
  absl::InlinedVector<absl::string_view, 4> output_filter;
  absl::string_view client_id;  // the request's, else that of its options; empty if there is none

  // Classify, Regress and MultiInference: serialized tf.Examples. A context belongs in front of each of them; it is the
  // concatenation of its parts.
  Examples examples_kind = Examples::kNone;
  absl::InlinedVector<absl::string_view, 8> examples;
  absl::InlinedVector<absl::string_view, 1> context;

  absl::InlinedVector<Task, 2> tasks;  // MultiInference

  void Clear() {
    static_cast<ModelSpecView&>(*this) = ModelSpecView();
    inputs.clear();
    output_filter.clear();
    client_id = absl::string_view();
    examples_kind = Examples::kNone;
    examples.clear();
    context.clear();
    tasks.clear();
    if (!owned.empty()) owned.clear();
  }

  std::deque<std::string> owned;  // values that had to be put together, which views above may refer to
};

// Reads the request of `method` into `view`, which is clear; `message` must outlive it. INVALID_ARGUMENT if it is not
// protobuf.
absl::Status ParseRequest(Method method, absl::string_view message, RequestView* view);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_REQUEST_VIEW_H_
