#include "cpp_ext/graph/batch_pair_attributes.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/batch_rows.h"
#include "tensorflow/core/framework/node_def_util.h"
#include "tensorflow/core/framework/types.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

absl::Status CheckTypes(const tf::DataTypeVector& types) {
  for (const tf::DataType type : types) {
    if (CanBatch(type)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("T has ", tf::DataTypeString(type), ", expected types of dense tensors"));
  }
  return absl::OkStatus();
}

template <typename Given>
absl::Status Refuse(const char* attribute, const Given& given, const std::string& expected) {
  return absl::FailedPreconditionError(absl::StrCat(attribute, " is ", given, ", expected ", expected));
}

absl::Status CheckPad(const ExtractedRegion& region) {
  const LengthPadding& padding = region.padding;
  const size_t inputs = region.input_types.size();
  if (!padding.pad_dims.empty() && padding.pad_dims.size() != inputs) {
    return Refuse("the length of pad_dims", padding.pad_dims.size(), absl::StrCat("one per input: ", inputs));
  }
  if (padding.pad_values.size() != padding.pad_dims.size()) {
    return Refuse("the length of pad_values", padding.pad_values.size(),
                  absl::StrCat("as many as pad_dims: ", padding.pad_dims.size()));
  }
  for (size_t i = 0; i < padding.pad_values.size(); ++i) {
    const tf::Tensor& value = padding.pad_values[i];
    if (value.dims() == 0 && value.dtype() == region.input_types[i]) continue;
    return Refuse("a value of pad_values", absl::StrCat(tf::DataTypeString(value.dtype()), value.shape().DebugString()),
                  absl::StrCat("a scalar of ", tf::DataTypeString(region.input_types[i])));
  }
  if (!std::is_sorted(padding.length_buckets.begin(), padding.length_buckets.end()) ||
      (!padding.length_buckets.empty() && padding.length_buckets.front() < 1)) {
    return Refuse("length_buckets", "out of order", "ascending lengths from at least 1");
  }
  return absl::OkStatus();
}

absl::Status CheckTrim(const ExtractedRegion& region) {
  const LengthPadding& padding = region.padding;
  const size_t inputs = region.input_types.size(), outputs = region.output_types.size();
  if (!padding.trim_dims.empty() && padding.trim_dims.size() != outputs) {
    return Refuse("the length of trim_dims", padding.trim_dims.size(), absl::StrCat("one per output: ", outputs));
  }
  if (padding.trim_inputs.size() != padding.trim_dims.size()) {
    return Refuse("the length of trim_inputs", padding.trim_inputs.size(),
                  absl::StrCat("as many as trim_dims: ", padding.trim_dims.size()));
  }
  for (size_t i = 0; i < padding.trim_dims.size(); ++i) {
    if (padding.trim_dims[i] < 1) continue;
    const int input = padding.trim_inputs[i];
    if (input < 0 || static_cast<size_t>(input) >= inputs) {
      return Refuse("a value of trim_inputs", input, absl::StrCat("an input, less than ", inputs));
    }
    if (!padding.pad_dims.empty() && padding.pad_dims[static_cast<size_t>(input)] >= 1) continue;
    return Refuse("a value of trim_inputs", input, "an input that has a variable length in pad_dims");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadPairAttributes(const tf::Node& batch_op, const tf::Node& unbatch_op, ExtractedRegion* region) {
  const tf::AttrSlice batch = batch_op.attrs(), unbatch = unbatch_op.attrs();
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(batch, "region", &region->name));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(batch, "T", &region->input_types));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(unbatch, "T", &region->output_types));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(batch, "pad_dims", &region->padding.pad_dims));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(batch, "pad_values", &region->padding.pad_values));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(batch, "length_buckets", &region->padding.length_buckets));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(unbatch, "trim_dims", &region->padding.trim_dims));
  TF_RETURN_IF_ERROR(tf::GetNodeAttr(unbatch, "trim_inputs", &region->padding.trim_inputs));
  TF_RETURN_IF_ERROR(CheckTypes(region->input_types));
  TF_RETURN_IF_ERROR(CheckTypes(region->output_types));
  TF_RETURN_IF_ERROR(CheckPad(*region));
  return CheckTrim(*region);
}

}  // namespace tessera
