#include "cpp_ext/graph/request_batch.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_rows.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

// Dimension 0 of a tensor by its declaration must be what requests may choose.
absl::Status CheckRows(const char* kind, const std::string& alias, const tf::TensorInfo& info) {
  if (!CanBatch(info.dtype())) {
    return absl::FailedPreconditionError(
        absl::StrCat(kind, " ", alias, " is of type ", tf::DataTypeString(info.dtype()), ", which has no rows"));
  }
  const tf::TensorShapeProto& shape = info.tensor_shape();
  if (shape.unknown_rank() || !info.has_tensor_shape()) return absl::OkStatus();
  if (shape.dim_size() == 0) {
    return absl::FailedPreconditionError(absl::StrCat(kind, " ", alias, " is a scalar, expected rows"));
  }
  if (shape.dim(0).size() < 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(kind, " ", alias, " has ", shape.dim(0).size(), " rows always, expected as many as are sent"));
}

absl::Status CheckSignature(const Signature& signature, const tf::SignatureDef& def) {
  if (signature.inputs().empty() || signature.fetches().empty()) {
    return absl::FailedPreconditionError("without inputs or computed outputs there is nothing to join");
  }
  for (const SignatureInput& input : signature.inputs()) {
    absl::Status status = CheckRows("input", input.alias, def.inputs().at(input.alias));
    if (!status.ok()) return status;
  }
  for (const SignatureOutput& output : signature.outputs()) {
    absl::Status status = CheckRows("output", output.alias, def.outputs().at(output.alias));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<RequestBatch> RequestBatch::Make(const Signature& signature, const tf::SignatureDef& def,
                                                 const tf::DataTypeVector& types,
                                                 std::shared_ptr<const StepRunner> runner, BatchGroups* groups) {
  absl::Status status = CheckSignature(signature, def);
  if (!status.ok()) {
    groups->Refuse(signature.name(), std::move(status));
    return nullptr;
  }
  ExtractedRegion region;
  region.name = signature.name();
  region.whole_request = true;
  region.input_types = types;
  region.output_types.resize(signature.fetches().size());  // the model says when it has run
  BatchGroups::Entry* const entry = groups->Find(signature.name(), /*in_loop=*/false);
  return std::unique_ptr<RequestBatch>(
      new RequestBatch(std::make_shared<BatchRegion>(entry, std::move(region), std::move(runner))));
}

absl::Status UnequalRows() {
  return absl::InvalidArgumentError("Batching Run() input tensors must have equal 0th-dimension size");
}

absl::Status TooManyRows(int64_t rows, int64_t max_rows) {
  return absl::InvalidArgumentError(
      absl::StrCat("Task size ", rows, " is larger than maximum input batch size ", max_rows));
}

absl::Status QueueTimeout(const absl::Status& status, bool started) {
  if (!absl::IsDeadlineExceeded(status) || started) return status;
  return absl::ResourceExhaustedError("Run() timeout exceeded while waiting in batching queue");
}

}  // namespace tessera
