#include "cpp_ext/ops/batch_attributes.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

absl::Status CheckTypes(const char* op, const tf::DataTypeVector& types) {
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == tf::DT_RESOURCE || types[i] == tf::DT_VARIANT || tf::IsRefType(types[i])) {
      return Invalid(op, ": T[", i, "] is ", tf::DataTypeString(types[i]), ", expected the type of a dense tensor");
    }
  }
  return absl::OkStatus();
}

// A list that speaks of each tensor, or of none at all.
absl::Status CheckDims(const char* op, const char* attribute, const std::vector<int32_t>& dims, size_t tensors) {
  if (!dims.empty() && dims.size() != tensors) {
    return Invalid(op, ": ", attribute, " has ", dims.size(), " entries, expected none or one per tensor (", tensors,
                   ")");
  }
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i] >= 1 || dims[i] == -1) continue;
    return Invalid(op, ": ", attribute, "[", i, "] is ", dims[i],
                   ", expected -1 (none) or a dimension from 1 on; dimension 0 is the rows");
  }
  return absl::OkStatus();
}

absl::Status CheckPadValues(const BatchAttributes& attributes) {
  const std::vector<tf::Tensor>& values = attributes.pad_values;
  if (values.size() != attributes.pad_dims.size()) {
    return Invalid("TesseraBatch: pad_values has ", values.size(), " entries, expected as many as pad_dims (",
                   attributes.pad_dims.size(), ")");
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].dims() == 0 && values[i].dtype() == attributes.types[i]) continue;
    return Invalid("TesseraBatch: pad_values[", i, "] is ", tf::DataTypeString(values[i].dtype()), " of shape ",
                   values[i].shape().DebugString(), ", expected a scalar of ", tf::DataTypeString(attributes.types[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckLengthBuckets(const BatchAttributes& attributes) {
  const std::vector<int64_t>& lengths = attributes.length_buckets;
  if (!lengths.empty() && attributes.pad_dims.empty()) {
    return Invalid("TesseraBatch: length_buckets has ", lengths.size(), " entries, expected none without pad_dims");
  }
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int64_t previous = i == 0 ? 0 : lengths[i - 1];
    if (lengths[i] > previous) continue;
    return Invalid("TesseraBatch: length_buckets[", i, "] is ", lengths[i], ", expected more than ", previous,
                   ": lengths ascend from at least 1");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BatchAttributes::Check() const {
  TF_RETURN_IF_ERROR(CheckTypes("TesseraBatch", types));
  if (region.empty()) return Invalid("TesseraBatch: region is empty, expected a name");
  TF_RETURN_IF_ERROR(CheckDims("TesseraBatch", "pad_dims", pad_dims, types.size()));
  TF_RETURN_IF_ERROR(CheckPadValues(*this));
  return CheckLengthBuckets(*this);
}

absl::Status UnbatchAttributes::Check() const {
  TF_RETURN_IF_ERROR(CheckTypes("TesseraUnbatch", types));
  TF_RETURN_IF_ERROR(CheckDims("TesseraUnbatch", "trim_dims", trim_dims, types.size()));
  if (trim_inputs.size() != trim_dims.size()) {
    return Invalid("TesseraUnbatch: trim_inputs has ", trim_inputs.size(), " entries, expected as many as trim_dims (",
                   trim_dims.size(), ")");
  }
  for (size_t i = 0; i < trim_inputs.size(); ++i) {
    if (trim_dims[i] == -1 || trim_inputs[i] >= 0) continue;
    return Invalid("TesseraUnbatch: trim_inputs[", i, "] is ", trim_inputs[i],
                   ", expected the position of an input of the TesseraBatch");
  }
  return absl::OkStatus();
}

}  // namespace tessera
