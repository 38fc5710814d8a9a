// TesseraBatch and TesseraUnbatch mark a region of a graph. The loader of graphs (cpp_ext/graph) runs the region once
// for many requests; the kernels here, for every other runtime, pass their tensors through: a batch of one request.
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "cpp_ext/ops/batch_attributes.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/variant.h"
#include "tensorflow/core/framework/variant_encode_decode.h"

namespace tessera {
namespace {

namespace tf = tensorflow;
using tf::shape_inference::DimensionHandle;
using tf::shape_inference::InferenceContext;
using tf::shape_inference::ShapeHandle;

// The number of rows as the token holds it: of the few types of variant values TensorFlow can store and make zeros of
// (when gradients are taken), the only one that holds every number of rows that fits in memory.
using Rows = double;

// Sets output `index`: the input's shape with another dimension 0, and any length in dimension `variable_dim` (-1:
// none).
absl::Status SetOutput(InferenceContext* c, int index, DimensionHandle rows, const char* attribute, int variable_dim) {
  ShapeHandle shape = c->input(index);
  if (c->RankKnown(shape) && variable_dim >= c->Rank(shape)) {
    return Invalid(attribute, "[", index, "] is ", variable_dim, ", expected less than the rank of tensor ", index,
                   ", which is ", c->Rank(shape));
  }
  if (c->RankKnown(shape)) {
    TF_RETURN_IF_ERROR(c->ReplaceDim(shape, 0, rows, &shape));
    if (variable_dim >= 0) TF_RETURN_IF_ERROR(c->ReplaceDim(shape, variable_dim, c->UnknownDim(), &shape));
  }
  c->set_output(index, shape);
  return absl::OkStatus();
}

// All tensors must have rows, and equally many as far as is known.
absl::Status CheckRows(InferenceContext* c, int tensors) {
  DimensionHandle rows = c->UnknownDim();
  for (int i = 0; i < tensors; ++i) {
    ShapeHandle shape;
    if (!c->WithRankAtLeast(c->input(i), 1, &shape).ok()) {
      return Invalid("tensor ", i, " is a scalar, expected rows in dimension 0");
    }
    if (!c->RankKnown(shape)) continue;
    DimensionHandle merged;
    if (!c->Merge(rows, c->Dim(shape, 0), &merged).ok()) {
      return Invalid("tensor ", i, " has ", c->Value(c->Dim(shape, 0)), " rows, expected ", c->Value(rows),
                     " as those before it");
    }
    rows = merged;
  }
  return absl::OkStatus();
}

absl::Status BatchShapes(InferenceContext* c) {
  BatchAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  TF_RETURN_IF_ERROR(CheckRows(c, c->num_inputs()));
  const DimensionHandle rows = c->UnknownDim();
  for (int i = 0; i < c->num_inputs(); ++i) {
    TF_RETURN_IF_ERROR(SetOutput(c, i, rows, "pad_dims", attributes.pad_dim(i)));
  }
  c->set_output(c->num_inputs(), c->Scalar());
  return absl::OkStatus();
}

absl::Status UnbatchShapes(InferenceContext* c) {
  UnbatchAttributes attributes;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  const int tensors = c->num_inputs() - 1;
  ShapeHandle token;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(tensors), 0, &token));
  TF_RETURN_IF_ERROR(CheckRows(c, tensors));
  const DimensionHandle rows = c->UnknownDim();
  for (int i = 0; i < tensors; ++i) {
    TF_RETURN_IF_ERROR(SetOutput(c, i, rows, "trim_dims", attributes.trim_dim(i)));
  }
  return absl::OkStatus();
}

REGISTER_OP("TesseraBatch")
    .Input("tensors: T")
    .Output("batched: T")
    .Output("token: variant")
    .Attr("T: list(type) >= 1")
    .Attr("region: string")
    .Attr("pad_dims: list(int) = []")
    .Attr("pad_values: list(tensor) = []")
    .Attr("length_buckets: list(int) = []")
    .SetShapeFn(BatchShapes)
    .Doc(R"doc(
Begins a region that may run once for many requests, up to the TesseraUnbatch that takes `token`.

tensors: of one request; all have the same number of rows (dimension 0).
batched: the rows of all requests of a batch, in the same order in every tensor.
token: connects the region's begin and end.
region: name of the region for policies and statistics, unique in the graph.
pad_dims: per tensor its dimension of variable length, -1 for none; empty: no tensor has one.
pad_values: per tensor the scalar that shorter ones are padded with; as many as pad_dims.
length_buckets: ascending; lengths are padded up to the next of these, longer ones are batched only with their equals;
  empty: the next power of two.
)doc");

REGISTER_OP("TesseraUnbatch")
    .Input("tensors: T")
    .Input("token: variant")
    .Output("unbatched: T")
    .Attr("T: list(type) >= 1")
    .Attr("trim_dims: list(int) = []")
    .Attr("trim_inputs: list(int) = []")
    .SetShapeFn(UnbatchShapes)
    .Doc(R"doc(
Ends the region of the TesseraBatch that made `token`, and returns each request's own rows.

tensors: row i is of the same request as row i of the TesseraBatch's outputs.
trim_dims: per tensor the dimension that is cut back to the request's own length, -1 for none; empty: none is cut.
trim_inputs: per tensor the input of the TesseraBatch that has this length in its variable dimension; as many as
  trim_dims.
)doc");

class BatchOp : public tf::OpKernel {
 public:
  explicit BatchOp(tf::OpKernelConstruction* ctx) : tf::OpKernel(ctx) { OP_REQUIRES_OK(ctx, attributes_.Read(ctx)); }

  void Compute(tf::OpKernelContext* ctx) override {
    const int tensors = ctx->num_inputs();
    int64_t rows = -1;
    for (int i = 0; i < tensors; ++i) {
      const tf::TensorShape& shape = ctx->input(i).shape();
      OP_REQUIRES(ctx, shape.dims() >= 1,
                  Invalid("region ", attributes_.region, ": input ", i, " is a scalar, expected rows in dimension 0"));
      if (rows < 0) rows = shape.dim_size(0);
      OP_REQUIRES(ctx, shape.dim_size(0) == rows,
                  Invalid("region ", attributes_.region, ": input ", i, " has ", shape.dim_size(0), " rows, input 0 ",
                          rows, ", expected equally many"));
      const int dim = attributes_.pad_dim(i);
      OP_REQUIRES(ctx, dim < shape.dims(),
                  Invalid("region ", attributes_.region, ": input ", i, " has ", shape.dims(),
                          " dimensions, expected a dimension ", dim, " of variable length"));
      ctx->set_output(i, ctx->input(i));
    }
    tf::Tensor token(tf::DT_VARIANT, {});
    token.scalar<tf::Variant>()() = static_cast<Rows>(rows);
    ctx->set_output(tensors, token);
  }
  bool IsExpensive() override { return false; }

 private:
  BatchAttributes attributes_;
};

class UnbatchOp : public tf::OpKernel {
 public:
  explicit UnbatchOp(tf::OpKernelConstruction* ctx) : tf::OpKernel(ctx) { OP_REQUIRES_OK(ctx, attributes_.Read(ctx)); }

  void Compute(tf::OpKernelContext* ctx) override {
    const int tensors = ctx->num_inputs() - 1;
    const tf::Tensor& token = ctx->input(tensors);
    const Rows* rows = token.dims() == 0 ? token.scalar<tf::Variant>()().get<Rows>() : nullptr;
    OP_REQUIRES(ctx, rows != nullptr,
                Invalid(name(), ": token is ", token.DebugString(), ", expected that of a TesseraBatch"));
    for (int i = 0; i < tensors; ++i) {
      const tf::TensorShape& shape = ctx->input(i).shape();
      OP_REQUIRES(ctx, shape.dims() >= 1 && static_cast<Rows>(shape.dim_size(0)) == *rows,
                  absl::FailedPreconditionError(
                      absl::StrCat(name(), ": tensor ", i, " has the shape ", shape.DebugString(), ", expected ",
                                   static_cast<int64_t>(*rows), " rows, as many as the inputs of the TesseraBatch")));
      OP_REQUIRES(ctx, attributes_.trim_dim(i) < shape.dims(),
                  Invalid(name(), ": tensor ", i, " has ", shape.dims(), " dimensions, expected a dimension ",
                          attributes_.trim_dim(i), " to cut back"));
      ctx->set_output(i, ctx->input(i));
    }
  }
  bool IsExpensive() override { return false; }

 private:
  UnbatchAttributes attributes_;
};

REGISTER_KERNEL_BUILDER(Name("TesseraBatch").Device(tf::DEVICE_CPU), BatchOp);
REGISTER_KERNEL_BUILDER(Name("TesseraUnbatch").Device(tf::DEVICE_CPU), UnbatchOp);

}  // namespace
}  // namespace tessera
