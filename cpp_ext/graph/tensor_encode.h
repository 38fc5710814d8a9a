// tensorflow::Tensor → tensorflow.TensorProto on the wire, into memory that the
// caller sized.
#ifndef TESSERA_CPP_EXT_GRAPH_TENSOR_ENCODE_H_
#define TESSERA_CPP_EXT_GRAPH_TENSOR_ENCODE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

// A tensor with the sizes that its encoding needs, computed once.
class TensorEncoder {
 public:
  // `content`: as `tensor_content` instead of typed fields. `tensor` must
  // outlive the encoder. Returns INVALID_ARGUMENT for a dtype that cannot be
  // sent (resource, variant).
  absl::Status Init(const tensorflow::Tensor& tensor, bool content);
  // Bytes of the TensorProto.
  size_t size_bytes() const { return size_bytes_; }
  // Writes exactly size_bytes() and returns the end.
  uint8_t* Write(uint8_t* to) const;

 private:
  uint8_t* WriteTypedValues(uint8_t* to) const;
  uint8_t* WriteStringContent(uint8_t* to) const;

  const tensorflow::Tensor* tensor_ = nullptr;
  bool content_ = false;
  size_t shape_bytes_ = 0;
  size_t payload_bytes_ = 0;  // of tensor_content or of the packed typed field
  size_t size_bytes_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TENSOR_ENCODE_H_
