// tensorflow.TensorProto on the wire → tensorflow::Tensor, without a protobuf
// object between.
#ifndef TESSERA_CPP_EXT_GRAPH_TENSOR_DECODE_H_
#define TESSERA_CPP_EXT_GRAPH_TENSOR_DECODE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// A short form (fewer values than elements, the last one repeated) may stand
// for at most this many bytes, so that a few bytes of request cannot claim all
// memory.
constexpr size_t kMaxShortFormBytes = 64 << 20;

// Accepts what tensorflow::Tensor::FromProto accepts: `tensor_content`, typed
// fields packed or not, the short form, surplus values (ignored), unknown
// fields. Anything else is INVALID_ARGUMENT with a message that names the field
// of TensorProto, without the tensor's own name. Never allocates more than 16
// times the message, or kMaxShortFormBytes.
absl::Status DecodeTensor(absl::string_view proto, tensorflow::Tensor* tensor);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TENSOR_DECODE_H_
