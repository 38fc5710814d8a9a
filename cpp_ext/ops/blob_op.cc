// TesseraBlob: a weight that lives in a file of its own, as a constant tensor.
// No copy, no restore pass.
#include <memory>
#include <utility>

#include "cpp_ext/ops/blob_registry.h"
#include "tensorflow/core/framework/allocation_description.pb.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

REGISTER_OP("TesseraBlob")
    .Output("value: dtype")
    .Attr("dtype: type")
    .Attr("shape: shape")
    .Attr("digest: string")
    .Attr("weight: string")
    .SetIsStateful()  // or constant folding would copy the weight into the
                      // graph
    .SetShapeFn(tf::shape_inference::ExplicitShape)
    .Doc(R"doc(
Returns a weight whose raw little-endian row-major bytes are the blob of this digest.

digest: SHA-256 of the bytes, in hex.
weight: name of the variable it came from, for messages.
)doc");

// A tensor buffer over the bytes of a blob; keeps the mapping alive.
class BlobBuffer : public tf::TensorBuffer {
 public:
  explicit BlobBuffer(std::shared_ptr<BlobBytes> bytes) : tf::TensorBuffer(bytes->data()), bytes_(std::move(bytes)) {}
  size_t size() const override { return bytes_->size_bytes(); }
  tf::TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tf::AllocationDescription* proto) const override {
    proto->set_requested_bytes(static_cast<int64_t>(size()));
    proto->set_allocator_name("tessera_blob");
  }
  bool OwnsMemory() const override { return false; }  // so that no kernel writes into the mapping

 private:
  const std::shared_ptr<BlobBytes> bytes_;
};

class BlobOp : public tf::OpKernel {
 public:
  explicit BlobOp(tf::OpKernelConstruction* ctx) : tf::OpKernel(ctx) {
    tf::DataType dtype;
    tf::TensorShape shape;
    std::string digest, weight;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("dtype", &dtype));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("shape", &shape));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("digest", &digest));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("weight", &weight));
    OP_REQUIRES(ctx, tf::DataTypeCanUseMemcpy(dtype),
                absl::InvalidArgumentError(
                    absl::StrCat("weight ", weight, ": ", tf::DataTypeString(dtype), " cannot be stored as a blob")));
    std::shared_ptr<BlobBytes> bytes;
    const size_t size_bytes = static_cast<size_t>(shape.num_elements()) * tf::DataTypeSize(dtype);
    const BlobError error = OpenBlob(digest, size_bytes, weight, &bytes);
    OP_REQUIRES(ctx, error.code == 0, absl::Status(static_cast<absl::StatusCode>(error.code), error.message));
    auto* buffer = new BlobBuffer(std::move(bytes));
    value_ = tf::Tensor(dtype, shape, buffer);
    buffer->Unref();
  }

  void Compute(tf::OpKernelContext* ctx) override { ctx->set_output(0, value_); }
  bool IsExpensive() override { return false; }

 private:
  tf::Tensor value_;
};

REGISTER_KERNEL_BUILDER(Name("TesseraBlob").Device(tf::DEVICE_CPU), BlobOp);

}  // namespace
}  // namespace tessera
