#include "cpp_ext/graph/tensor_decode.h"

#include <algorithm>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_fields.h"
#include "cpp_ext/graph/tensor_header.h"
#include "protozero/pbf_reader.hpp"

namespace tessera {
namespace {

namespace tf = tensorflow;
using protozero::pbf_reader;
using protozero::pbf_wire_type;

absl::Status Bad(const std::string& text) { return absl::InvalidArgumentError(text); }

// Repeats the last of `filled` values, or a zero value, up to `elements`.
template <typename T>
void FillRest(T* values, int64_t filled, int64_t elements) {
  if (filled < elements) std::fill(values + filled, values + elements, filled > 0 ? values[filled - 1] : T());
}

// What protobuf and the cast of Tensor::FromProto make of a varint.
template <typename T>
T Narrow(uint64_t value, tf::DataType dtype) {
  if constexpr (std::is_same_v<T, bool>) {
    return value != 0;
  } else {
    if (dtype == tf::DT_INT4 || dtype == tf::DT_UINT4) return static_cast<T>(value & 0xF);
    return static_cast<T>(value);
  }
}

template <typename T>
void ReadVarints(pbf_reader message, uint32_t field, tf::DataType dtype, T* values, int64_t elements) {
  int64_t filled = 0;
  while (message.next(field)) {
    if (message.wire_type() == pbf_wire_type::varint) {
      const uint64_t value = message.get_uint64();
      if (filled < elements) values[filled++] = Narrow<T>(value, dtype);
    } else if (message.wire_type() == pbf_wire_type::length_delimited) {
      const protozero::data_view packed = message.get_view();
      const char* at = packed.data();
      const char* const end = at + packed.size();
      while (at != end) {
        const uint64_t value = protozero::decode_varint(&at, end);
        if (filled < elements) values[filled++] = Narrow<T>(value, dtype);
      }
    } else {
      message.skip();
    }
  }
  FillRest(values, filled, elements);
}

void ReadVarintsOf(tf::DataType dtype, const pbf_reader& message, uint32_t field, void* data, int64_t elements) {
  switch (tf::DataTypeSize(dtype)) {
    case 1:
      if (dtype == tf::DT_BOOL) return ReadVarints(message, field, dtype, static_cast<bool*>(data), elements);
      return ReadVarints(message, field, dtype, static_cast<uint8_t*>(data), elements);
    case 2:
      return ReadVarints(message, field, dtype, static_cast<uint16_t*>(data), elements);
    case 4:
      return ReadVarints(message, field, dtype, static_cast<uint32_t*>(data), elements);
    default:
      return ReadVarints(message, field, dtype, static_cast<uint64_t*>(data), elements);
  }
}

// Packed or single values of `scalar_bytes` each, `element_bytes` an element
// (complex numbers have two scalars).
absl::Status ReadCopied(pbf_reader message, uint32_t field, size_t scalar_bytes, size_t element_bytes, char* data,
                        int64_t elements) {
  const size_t total_bytes = static_cast<size_t>(elements) * element_bytes;
  size_t filled_bytes = 0;
  const auto append = [&](const char* from, size_t size_bytes) {
    const size_t take = std::min(size_bytes, total_bytes - filled_bytes);
    if (take != 0) memcpy(data + filled_bytes, from, take);
    filled_bytes += take;
  };
  while (message.next(field)) {
    if (message.wire_type() == pbf_wire_type::length_delimited) {
      const protozero::data_view packed = message.get_view();
      if (packed.size() % scalar_bytes != 0) {
        return Bad(absl::StrCat("field ", field, ": ", packed.size(), " bytes are not a multiple of ", scalar_bytes));
      }
      append(packed.data(), packed.size());
    } else if (message.wire_type() == pbf_wire_type::fixed32 && scalar_bytes == 4) {
      const uint32_t value = message.get_fixed32();
      append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else if (message.wire_type() == pbf_wire_type::fixed64 && scalar_bytes == 8) {
      const uint64_t value = message.get_fixed64();
      append(reinterpret_cast<const char*>(&value), sizeof(value));
    } else {
      message.skip();
    }
  }
  const size_t filled = filled_bytes / element_bytes;  // half a complex number does not count
  char* const rest = data + filled * element_bytes;
  if (filled == 0) {
    memset(rest, 0, total_bytes);
  } else {
    for (char* to = rest; to != data + total_bytes; to += element_bytes)
      memcpy(to, rest - element_bytes, element_bytes);
  }
  return absl::OkStatus();
}

void ReadFloat8(pbf_reader message, uint32_t field, uint8_t* values, int64_t elements) {
  protozero::data_view bytes;
  while (message.next(field)) {
    if (message.wire_type() == pbf_wire_type::length_delimited) {
      bytes = message.get_view();
    } else {
      message.skip();
    }
  }
  const int64_t filled = std::min<int64_t>(static_cast<int64_t>(bytes.size()), elements);
  if (filled != 0) memcpy(values, bytes.data(), static_cast<size_t>(filled));
  FillRest(values, filled, elements);
}

void ReadStrings(pbf_reader message, uint32_t field, tf::tstring* values, int64_t elements) {
  int64_t filled = 0;
  while (message.next(field)) {
    if (message.wire_type() != pbf_wire_type::length_delimited) {
      message.skip();
      continue;
    }
    const protozero::data_view value = message.get_view();
    if (filled < elements) values[filled++].assign(value.data(), value.size());
  }
  FillRest(values, filled, elements);
}

// `tensor_content` of strings: all lengths as varints, then all bytes.
absl::Status ReadStringContent(protozero::data_view content, tf::tstring* values, int64_t elements) {
  const char* at = content.data();
  const char* const end = at + content.size();
  absl::InlinedVector<uint64_t, 16> sizes;
  for (int64_t i = 0; i < elements; ++i) sizes.push_back(protozero::decode_varint(&at, end));
  for (int64_t i = 0; i < elements; ++i) {
    if (sizes[i] > static_cast<uint64_t>(end - at)) return Bad("tensor_content: strings are longer than the content");
    values[i].assign(at, sizes[i]);
    at += sizes[i];
  }
  if (at != end) return Bad("tensor_content: has bytes after its last string");
  return absl::OkStatus();
}

absl::Status ReadValues(const pbf_reader& message, const TensorHeader& header, TensorField field, int64_t elements,
                        tf::Tensor* tensor) {
  void* const data = tensor->data();
  const tf::DataType dtype = tensor->dtype();
  if (header.content.size() != 0) {
    if (dtype == tf::DT_STRING) return ReadStringContent(header.content, static_cast<tf::tstring*>(data), elements);
    memcpy(data, header.content.data(), header.content.size());
    return absl::OkStatus();
  }
  switch (field.kind) {
    case FieldKind::kCopy: {
      const bool wide = dtype == tf::DT_DOUBLE || dtype == tf::DT_COMPLEX128;
      return ReadCopied(message, field.number, wide ? 8 : 4, ElementBytes(dtype), static_cast<char*>(data), elements);
    }
    case FieldKind::kVarint:
      ReadVarintsOf(dtype, message, field.number, data, elements);
      break;
    case FieldKind::kBytes:
      ReadFloat8(message, field.number, static_cast<uint8_t*>(data), elements);
      break;
    case FieldKind::kStrings:
      ReadStrings(message, field.number, static_cast<tf::tstring*>(data), elements);
      break;
    case FieldKind::kNone:
      break;
  }
  return absl::OkStatus();
}

absl::Status Decode(absl::string_view proto, tf::Tensor* tensor) {
  const pbf_reader message(proto.data(), proto.size());
  TensorHeader header;
  int64_t elements = 0;
  absl::Status status = ReadTensorHeader(message, &header);
  if (status.ok()) status = CountElements(header, &elements);
  if (!status.ok()) return status;
  const auto dtype = static_cast<tf::DataType>(header.dtype);
  const TensorField field = tf::DataType_IsValid(static_cast<int>(header.dtype)) ? FieldOf(dtype) : TensorField{};
  if (field.kind == FieldKind::kNone) {
    return Bad(absl::StrCat("dtype: ", header.dtype, " is not a type of values that can be sent"));
  }
  status = CheckTensorSize(header, dtype, elements, proto.size());
  if (!status.ok()) return status;
  tf::TensorShape shape;
  status = tf::TensorShape::BuildTensorShape(absl::MakeConstSpan(header.dims), &shape);
  if (!status.ok()) return Bad(absl::StrCat("tensor_shape: ", status.message()));
  *tensor = tf::Tensor(dtype, shape);
  if (elements == 0) return absl::OkStatus();
  if (!tensor->IsInitialized()) return absl::ResourceExhaustedError("out of memory");
  return ReadValues(message, header, field, elements, tensor);
}

}  // namespace

absl::Status DecodeTensor(absl::string_view proto, tf::Tensor* tensor) {
  try {
    return Decode(proto, tensor);
  } catch (const protozero::exception& error) {
    return Bad(absl::StrCat("TensorProto: ", error.what()));
  }
}

}  // namespace tessera
