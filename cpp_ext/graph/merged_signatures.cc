#include "cpp_ext/graph/merged_signatures.h"

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/inference_message.h"

namespace tessera {
namespace {

constexpr size_t kMaxHeads = 30;

bool HasInferenceOutputs(const Signature& signature) {
  for (const Method method : {Method::kClassify, Method::kRegress}) {
    if (FindInferenceOutputs(method, signature, /*check_method_name=*/false).ok()) return true;
  }
  return false;
}

// Equal for signatures whose outputs are at the same positions of the same tensors.
std::string HeadKey(const Signature& signature) {
  std::string key = signature.inputs().front().tensor;
  for (const SignatureOutput& output : signature.outputs()) {
    absl::StrAppend(&key, "\n", output.alias, "=", output.tensor);
  }
  return key;
}

}  // namespace

Heads FindHeads(const std::vector<const Signature*>& signatures) {
  Heads found;
  std::map<std::string, HeadSet> head_of;
  for (const Signature* signature : signatures) {
    if (!HasInferenceOutputs(*signature)) continue;
    HeadSet& head = head_of[HeadKey(*signature)];
    if (head == 0) {
      if (found.heads.size() == kMaxHeads) continue;
      head = HeadSet{1} << found.heads.size();
      found.heads.push_back(signature);
    }
    found.of_signature[signature->name()] = head;
  }
  return found;
}

tensorflow::SignatureDef MergeHeads(const std::vector<const Signature*>& heads, HeadSet set) {
  tensorflow::SignatureDef merged;
  for (size_t head = 0; head < heads.size(); ++head) {
    if (((set >> head) & 1) == 0) continue;
    for (const SignatureInput& input : heads[head]->inputs()) {
      (*merged.mutable_inputs())[input.tensor].set_name(input.tensor);
    }
    for (const SignatureOutput& output : heads[head]->outputs()) {
      (*merged.mutable_outputs())[output.tensor].set_name(output.tensor);
    }
  }
  return merged;
}

std::vector<HeadSet> SetsToMergeAtLoad(size_t heads) {
  if (heads < 2) return {};
  const HeadSet all = (HeadSet{1} << heads) - 1;
  if (heads > kMaxHeadsMergedAtLoad) return {all};
  std::vector<HeadSet> sets;
  for (HeadSet set = 1; set <= all; ++set) {
    if (__builtin_popcount(set) > 1) sets.push_back(set);
  }
  return sets;
}

}  // namespace tessera
