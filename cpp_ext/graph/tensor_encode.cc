#include "cpp_ext/graph/tensor_encode.h"

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_fields.h"
#include "cpp_ext/graph/wire.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

size_t DimBytes(int64_t size) { return size == 0 ? 0 : VarintFieldSize(kDimSize, static_cast<uint64_t>(size)); }

// Calls `visit` with each element as the number that its varint holds: signed
// types sign-extended to 64 bits, floats of 16 bits as their bits.
template <typename Visit>
void ForEachVarint(const tf::Tensor& tensor, Visit visit) {
  const int64_t elements = tensor.NumElements();
  const auto walk = [&](const auto* values) {
    for (int64_t i = 0; i < elements; ++i) visit(static_cast<uint64_t>(static_cast<int64_t>(values[i])));
  };
  const void* data = tensor.data();
  switch (tensor.dtype()) {
    case tf::DT_INT4:  // the low half of a byte; what is above it means nothing
      for (int64_t i = 0; i < elements; ++i) {
        const auto low = static_cast<int8_t>(static_cast<uint8_t>(static_cast<const uint8_t*>(data)[i] << 4));
        visit(static_cast<uint64_t>(static_cast<int64_t>(low >> 4)));
      }
      return;
    case tf::DT_UINT4:
      for (int64_t i = 0; i < elements; ++i) visit(static_cast<const uint8_t*>(data)[i] & 0xF);
      return;
    case tf::DT_INT8:
    case tf::DT_QINT8:
      return walk(static_cast<const int8_t*>(data));
    case tf::DT_INT16:
    case tf::DT_QINT16:
      return walk(static_cast<const int16_t*>(data));
    case tf::DT_INT32:
    case tf::DT_QINT32:
      return walk(static_cast<const int32_t*>(data));
    case tf::DT_INT64:
      return walk(static_cast<const int64_t*>(data));
    case tf::DT_UINT8:
    case tf::DT_BOOL:
    case tf::DT_QUINT8:
      return walk(static_cast<const uint8_t*>(data));
    case tf::DT_UINT16:
    case tf::DT_QUINT16:
    case tf::DT_HALF:
    case tf::DT_BFLOAT16:
      return walk(static_cast<const uint16_t*>(data));
    case tf::DT_UINT32:
      return walk(static_cast<const uint32_t*>(data));
    default:
      return walk(static_cast<const uint64_t*>(data));
  }
}

size_t StringContentBytes(const tf::Tensor& tensor) {
  size_t bytes = 0;
  const auto values = tensor.flat<tf::tstring>();
  for (int64_t i = 0; i < values.size(); ++i) bytes += VarintSize(values(i).size()) + values(i).size();
  return bytes;
}

}  // namespace

absl::Status TensorEncoder::Init(const tf::Tensor& tensor, bool content) {
  tensor_ = &tensor;
  content_ = content;
  const TensorField field = FieldOf(tensor.dtype());
  if (field.kind == FieldKind::kNone) {
    return absl::InvalidArgumentError(
        absl::StrCat(tf::DataTypeString(tensor.dtype()), " cannot be sent in a response"));
  }
  shape_bytes_ = 0;
  for (int i = 0; i < tensor.dims(); ++i) shape_bytes_ += DelimitedSize(kShapeDim, DimBytes(tensor.dim_size(i)));
  size_bytes_ =
      VarintFieldSize(kTensorDtype, static_cast<uint64_t>(tensor.dtype())) + DelimitedSize(kTensorShape, shape_bytes_);
  payload_bytes_ = 0;
  if (tensor.NumElements() == 0) return absl::OkStatus();
  if (field.kind == FieldKind::kStrings && !content) {
    const auto values = tensor.flat<tf::tstring>();
    for (int64_t i = 0; i < values.size(); ++i) size_bytes_ += DelimitedSize(field.number, values(i).size());
    return absl::OkStatus();
  }
  if (field.kind == FieldKind::kStrings) {
    payload_bytes_ = StringContentBytes(tensor);
  } else if (content || field.kind != FieldKind::kVarint) {
    payload_bytes_ = static_cast<size_t>(tensor.NumElements()) * ElementBytes(tensor.dtype());
  } else {
    ForEachVarint(tensor, [this](uint64_t value) { payload_bytes_ += VarintSize(value); });
  }
  size_bytes_ += DelimitedSize(content ? kTensorContent : field.number, payload_bytes_);
  return absl::OkStatus();
}

uint8_t* TensorEncoder::Write(uint8_t* to) const {
  to = WriteVarintField(kTensorDtype, static_cast<uint64_t>(tensor_->dtype()), to);
  to = WriteDelimitedHeader(kTensorShape, shape_bytes_, to);
  for (int i = 0; i < tensor_->dims(); ++i) {
    const int64_t size = tensor_->dim_size(i);
    to = WriteDelimitedHeader(kShapeDim, DimBytes(size), to);
    if (size != 0) to = WriteVarintField(kDimSize, static_cast<uint64_t>(size), to);
  }
  if (tensor_->NumElements() == 0) return to;
  if (!content_) return WriteTypedValues(to);
  to = WriteDelimitedHeader(kTensorContent, payload_bytes_, to);
  if (tensor_->dtype() == tf::DT_STRING) return WriteStringContent(to);
  return WriteBytes(tensor_->data(), payload_bytes_, to);
}

uint8_t* TensorEncoder::WriteTypedValues(uint8_t* to) const {
  const TensorField field = FieldOf(tensor_->dtype());
  if (field.kind == FieldKind::kStrings) {
    const auto values = tensor_->flat<tf::tstring>();
    for (int64_t i = 0; i < values.size(); ++i) to = WriteDelimited(field.number, values(i), to);
    return to;
  }
  to = WriteDelimitedHeader(field.number, payload_bytes_, to);
  if (field.kind != FieldKind::kVarint) return WriteBytes(tensor_->data(), payload_bytes_, to);
  ForEachVarint(*tensor_, [&to](uint64_t value) { to = WriteVarint(value, to); });
  return to;
}

uint8_t* TensorEncoder::WriteStringContent(uint8_t* to) const {
  const auto values = tensor_->flat<tf::tstring>();
  for (int64_t i = 0; i < values.size(); ++i) to = WriteVarint(values(i).size(), to);
  for (int64_t i = 0; i < values.size(); ++i) to = WriteBytes(values(i).data(), values(i).size(), to);
  return to;
}

}  // namespace tessera
