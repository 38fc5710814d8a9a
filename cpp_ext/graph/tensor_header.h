// The part of a TensorProto that says what its values are: dtype, shape,
// `tensor_content`.
#ifndef TESSERA_CPP_EXT_GRAPH_TENSOR_HEADER_H_
#define TESSERA_CPP_EXT_GRAPH_TENSOR_HEADER_H_

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "protozero/pbf_reader.hpp"
#include "tensorflow/core/framework/types.h"

namespace tessera {

struct TensorHeader {
  int64_t dtype = 0;  // as sent: may be no DataType
  absl::InlinedVector<int64_t, 4> dims;
  bool unknown_rank = false;
  protozero::data_view content;
};

// All return INVALID_ARGUMENT with a text that names the field. They may throw
// protozero::exception.
absl::Status ReadTensorHeader(protozero::pbf_reader message, TensorHeader* header);
// Refuses unknown, negative and overflowing shapes.
absl::Status CountElements(const TensorHeader& header, int64_t* elements);
// Refuses content of the wrong size, and short forms that claim too much of
// memory.
absl::Status CheckTensorSize(const TensorHeader& header, tensorflow::DataType dtype, int64_t elements,
                             size_t message_bytes);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TENSOR_HEADER_H_
