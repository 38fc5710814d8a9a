// Takes the batched regions out of a signature's graph.
//
// A region is what lies between a TesseraBatch and its TesseraUnbatch. Its ops move into a graph of their own, and one
// op (TesseraBatchedCall, batch_op.h) takes their place, which runs that graph once for many requests. In a loop
// (a frame) a TesseraLoopEnd tells when a request has left it.
#ifndef TESSERA_CPP_EXT_GRAPH_BATCH_EXTRACT_H_
#define TESSERA_CPP_EXT_GRAPH_BATCH_EXTRACT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/graph/graph.h"

namespace tessera {

// What the pair says of tensors of variable length; see the op definitions (ops/batch_op.cc).
struct LengthPadding {
  std::vector<int> pad_dims;  // per input: its dimension of variable length, -1 for none; empty: no input has one
  std::vector<tensorflow::Tensor> pad_values;
  std::vector<int64_t> length_buckets;
  std::vector<int> trim_dims;    // per output: the dimension to cut back, -1 for none; empty: none
  std::vector<int> trim_inputs;  // per output: the input that has its length
};

struct ExtractedRegion {
  std::string name;
  bool whole_request = false;  // all of a signature (request_batch.h), not what a pair marks
  bool in_loop = false;
  tensorflow::DataTypeVector input_types;
  tensorflow::DataTypeVector output_types;
  LengthPadding padding;
  std::unique_ptr<tensorflow::Graph> graph;  // with _Arg and _Retval nodes
};

// A pair that stays as it is, and passes its tensors through.
struct RefusedRegion {
  std::string name;
  absl::Status reason;
};

// Changes `graph`; the new ops' attribute `region` is the position in `regions`. Refused are regions that use values of
// one request from outside, whose inner values are used outside, or that have ops with effects.
absl::Status ExtractBatchRegions(tensorflow::Graph* graph, std::vector<ExtractedRegion>* regions,
                                 std::vector<RefusedRegion>* refused);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_BATCH_EXTRACT_H_
