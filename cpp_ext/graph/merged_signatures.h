// Signatures that MultiInference may ask for together, as signatures of their own, so that one run answers all tasks.
//
// Pure: decides from signatures only.
#ifndef TESSERA_CPP_EXT_GRAPH_MERGED_SIGNATURES_H_
#define TESSERA_CPP_EXT_GRAPH_MERGED_SIGNATURES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cpp_ext/graph/signature.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace tessera {

// A set of heads, one bit each. A head is what signatures that classify or regress with the same tensors are called.
using HeadSet = uint32_t;

struct Heads {
  std::map<std::string, HeadSet, std::less<>> of_signature;  // only of those that classify or regress; one bit
  std::vector<const Signature*> heads;                       // by bit, one signature of each
};

// At most 30 heads; signatures beyond have none. The signatures must outlive the result.
Heads FindHeads(const std::vector<const Signature*>& signatures);

// A signature with the inputs and outputs of all of `set`; the tensors are their own aliases. Its name is not set.
tensorflow::SignatureDef MergeHeads(const std::vector<const Signature*>& heads, HeadSet set);

// The sets of two heads and more that are worth an executor before anybody asked: every one (11) of up to
// kMaxHeadsMergedAtLoad heads, of more only that of all heads.
constexpr size_t kMaxHeadsMergedAtLoad = 4;
std::vector<HeadSet> SetsToMergeAtLoad(size_t heads);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_MERGED_SIGNATURES_H_
