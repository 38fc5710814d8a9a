// A signature as tables that are computed once: which input goes to which feed,
// which fetch is which output.
//
// Immutable after Make; any thread may read.
#ifndef TESSERA_CPP_EXT_GRAPH_SIGNATURE_H_
#define TESSERA_CPP_EXT_GRAPH_SIGNATURE_H_

#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace tessera {

struct SignatureInput {
  std::string alias;
  std::string tensor;  // name in the graph
  bool has_default = false;
  tensorflow::Tensor default_value;
};

struct SignatureOutput {
  std::string alias;
  std::string tensor;
  // Exactly one of the two is ≥ 0: position among the fetches, or among the
  // inputs when the output is an input.
  int fetch = -1;
  int input = -1;
};

class Signature {
 public:
  // INVALID_ARGUMENT: two inputs feed one tensor, a tensor is not dense, or a
  // default value cannot be read.
  static absl::StatusOr<Signature> Make(const std::string& name, const tensorflow::SignatureDef& def);

  const std::string& name() const { return name_; }
  // What it was exported for, such as "tensorflow/serving/predict".
  const std::string& method_name() const { return method_name_; }
  // Sorted by alias. Inputs are also the feeds, in this order.
  const std::vector<SignatureInput>& inputs() const { return inputs_; }
  const std::vector<SignatureOutput>& outputs() const { return outputs_; }
  // Distinct tensors to fetch; none of them is an input.
  const std::vector<std::string>& fetches() const { return fetches_; }

  // Position in inputs() or outputs(), -1 if there is no such alias.
  // Logarithmic, no allocation.
  int FindInput(absl::string_view alias) const;
  int FindOutput(absl::string_view alias) const;

  // Puts defaults into `args` (one a feed) where `given` is false.
  // INVALID_ARGUMENT, with TensorFlow Serving's texts, when the aliases of a
  // request are not those of the signature. Position i of `aliases` went to
  // inputs()[positions[i]], -1 for an alias that the signature does not have.
  absl::Status CheckInputs(absl::Span<const absl::string_view> aliases, absl::Span<const int> positions,
                           absl::Span<tensorflow::Tensor> args) const;

  // The outputs that a filter asks for, all of them for an empty one.
  // INVALID_ARGUMENT for an unknown or repeated alias.
  absl::Status SelectOutputs(absl::Span<const absl::string_view> filter,
                             absl::InlinedVector<const SignatureOutput*, 4>* selected) const;

 private:
  std::string name_;
  std::string method_name_;
  bool has_defaults_ = false;
  std::vector<SignatureInput> inputs_;
  std::vector<SignatureOutput> outputs_;
  std::vector<std::string> fetches_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_SIGNATURE_H_
