#include "cpp_ext/graph/batch_op.h"

#include <utility>

#include "cpp_ext/ops/step_context.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

REGISTER_OP("TesseraBatchedCall")
    .Input("in: Tin")
    .Output("out: Tout")
    .Attr("Tin: list(type) >= 1")
    .Attr("Tout: list(type) >= 1")
    .Attr("region: int")
    .SetIsStateful()
    .SetShapeFn(tf::shape_inference::UnknownShape)
    .Doc("Runs a batched region. Made by the loader; region: its position among the signature's.");

REGISTER_OP("TesseraLoopEnd")
    .Attr("region: int")
    .SetIsStateful()
    .SetShapeFn(tf::shape_inference::NoOutputs)
    .Doc("Tells that the step has left the loop around a batched region. Made by the loader.");

// The step that the kernel runs for, or null.
Step* StepOf(const tf::OpKernelContext& ctx) {
  const StepContext* context = FindStep(ctx.step_id());
  return context == nullptr ? nullptr : context->step;
}

class BatchedCallOp : public tf::AsyncOpKernel {
 public:
  explicit BatchedCallOp(tf::OpKernelConstruction* ctx) : tf::AsyncOpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("region", &number_));
  }
  void Bind(absl::Span<const std::shared_ptr<BatchRegion>> regions) {
    region_ = regions[static_cast<size_t>(number_)].get();
  }
  void ComputeAsync(tf::OpKernelContext* ctx, DoneCallback done) override {
    Step* step = StepOf(*ctx);
    OP_REQUIRES_ASYNC(ctx, step != nullptr && region_ != nullptr,
                      absl::FailedPreconditionError("TesseraBatchedCall runs only in Tessera's own executor"), done);
    region_->Submit(step, ctx, std::move(done));
  }

 private:
  int number_ = 0;
  BatchRegion* region_ = nullptr;
};

class LoopEndOp : public tf::OpKernel {
 public:
  explicit LoopEndOp(tf::OpKernelConstruction* ctx) : tf::OpKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("region", &number_));
  }
  void Bind(absl::Span<const std::shared_ptr<BatchRegion>> regions) {
    region_ = regions[static_cast<size_t>(number_)].get();
  }
  void Compute(tf::OpKernelContext* ctx) override {
    Step* step = StepOf(*ctx);
    if (step != nullptr && region_ != nullptr) step->LeaveLoop(region_);
  }
  bool IsExpensive() override { return false; }

 private:
  int number_ = 0;
  BatchRegion* region_ = nullptr;
};

REGISTER_KERNEL_BUILDER(Name("TesseraBatchedCall").Device(tf::DEVICE_CPU), BatchedCallOp);
REGISTER_KERNEL_BUILDER(Name("TesseraLoopEnd").Device(tf::DEVICE_CPU), LoopEndOp);

}  // namespace

void BindRegion(absl::Span<const std::shared_ptr<BatchRegion>> regions, tf::OpKernel* kernel) {
  if (kernel->type_string() == "TesseraBatchedCall") {
    static_cast<BatchedCallOp*>(kernel)->Bind(regions);
  } else if (kernel->type_string() == "TesseraLoopEnd") {
    static_cast<LoopEndOp*>(kernel)->Bind(regions);
  }
}

}  // namespace tessera
