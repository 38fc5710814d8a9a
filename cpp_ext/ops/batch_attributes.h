// The attributes of TesseraBatch and TesseraUnbatch, read and checked alike by shape functions and kernels.
#ifndef TESSERA_CPP_EXT_OPS_BATCH_ATTRIBUTES_H_
#define TESSERA_CPP_EXT_OPS_BATCH_ATTRIBUTES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/types.h"
#include "tensorflow/core/platform/errors.h"

namespace tessera {

// INVALID_ARGUMENT with the parts as its message.
template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

struct BatchAttributes {
  tensorflow::DataTypeVector types;
  std::string region;
  std::vector<int32_t> pad_dims;  // per tensor, -1 for none; or empty
  std::vector<tensorflow::Tensor> pad_values;
  std::vector<int64_t> length_buckets;

  // `Context` is an OpKernelConstruction or an InferenceContext. INVALID_ARGUMENT names the attribute, what it is and
  // what was expected.
  template <typename Context>
  absl::Status Read(Context* ctx) {
    TF_RETURN_IF_ERROR(ctx->GetAttr("T", &types));
    TF_RETURN_IF_ERROR(ctx->GetAttr("region", &region));
    TF_RETURN_IF_ERROR(ctx->GetAttr("pad_dims", &pad_dims));
    TF_RETURN_IF_ERROR(ctx->GetAttr("pad_values", &pad_values));
    TF_RETURN_IF_ERROR(ctx->GetAttr("length_buckets", &length_buckets));
    return Check();
  }
  absl::Status Check() const;
  // The dimension of variable length of a tensor, -1 for none.
  int pad_dim(int tensor) const { return pad_dims.empty() ? -1 : pad_dims[static_cast<size_t>(tensor)]; }
};

struct UnbatchAttributes {
  tensorflow::DataTypeVector types;
  std::vector<int32_t> trim_dims;  // per tensor, -1 for none; or empty
  std::vector<int32_t> trim_inputs;

  // As above.
  template <typename Context>
  absl::Status Read(Context* ctx) {
    TF_RETURN_IF_ERROR(ctx->GetAttr("T", &types));
    TF_RETURN_IF_ERROR(ctx->GetAttr("trim_dims", &trim_dims));
    TF_RETURN_IF_ERROR(ctx->GetAttr("trim_inputs", &trim_inputs));
    return Check();
  }
  absl::Status Check() const;
  // The dimension of a tensor that is cut back, -1 for none.
  int trim_dim(int tensor) const { return trim_dims.empty() ? -1 : trim_dims[static_cast<size_t>(tensor)]; }
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_OPS_BATCH_ATTRIBUTES_H_
