#include "cpp_ext/graph/tensor_header.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_decode.h"
#include "cpp_ext/graph/tensor_fields.h"

namespace tessera {
namespace {

namespace tf = tensorflow;
using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr int kMaxDims = 254;  // TensorFlow's own limit

absl::Status Bad(const std::string& text) { return absl::InvalidArgumentError(text); }

// Returns false when a known field has a wire type that protobuf would not read
// either; it is then skipped.
bool Is(const pbf_reader& reader, uint32_t field, pbf_wire_type type) {
  return reader.tag() == field && reader.wire_type() == type;
}

absl::Status ReadShape(pbf_reader shape, TensorHeader* header) {
  while (shape.next()) {
    if (Is(shape, kShapeDim, pbf_wire_type::length_delimited)) {
      pbf_reader dim = shape.get_message();
      int64_t size = 0;
      while (dim.next()) {
        if (Is(dim, kDimSize, pbf_wire_type::varint)) {
          size = dim.get_int64();
        } else {
          dim.skip();
        }
      }
      if (header->dims.size() == kMaxDims) return Bad(absl::StrCat("tensor_shape has more than ", kMaxDims, " dims"));
      header->dims.push_back(size);
    } else if (Is(shape, kShapeUnknownRank, pbf_wire_type::varint)) {
      header->unknown_rank = shape.get_bool();
    } else {
      shape.skip();
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTensorHeader(pbf_reader message, TensorHeader* header) {
  while (message.next()) {
    if (Is(message, kTensorDtype, pbf_wire_type::varint)) {
      header->dtype = message.get_enum();
    } else if (Is(message, kTensorShape, pbf_wire_type::length_delimited)) {
      absl::Status status = ReadShape(message.get_message(), header);
      if (!status.ok()) return status;
    } else if (Is(message, kTensorContent, pbf_wire_type::length_delimited)) {
      header->content = message.get_view();
    } else {
      message.skip();
    }
  }
  return absl::OkStatus();
}

absl::Status CountElements(const TensorHeader& header, int64_t* elements) {
  if (header.unknown_rank) return Bad("tensor_shape.unknown_rank: the shape of a value must be known");
  *elements = 1;
  for (size_t i = 0; i < header.dims.size(); ++i) {
    const int64_t dim = header.dims[i];
    if (dim < 0) return Bad(absl::StrCat("tensor_shape.dim[", i, "].size: got ", dim, ", expected 0 or more"));
    if (__builtin_mul_overflow(*elements, dim, elements)) {
      return Bad(absl::StrCat("tensor_shape.dim[", i, "].size: the number of elements overflows at ", dim));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTensorSize(const TensorHeader& header, tf::DataType dtype, int64_t elements, size_t message_bytes) {
  const size_t element_bytes = ElementBytes(dtype);
  size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<size_t>(elements), element_bytes, &bytes)) {
    return Bad("tensor_shape: the number of bytes overflows");
  }
  if (header.content.size() != 0 && dtype != tf::DT_STRING) {
    if (header.content.size() == bytes) return absl::OkStatus();
    return Bad(absl::StrCat("tensor_content: has ", header.content.size(), " bytes, expected ", bytes, " for ",
                            elements, " elements of ", tf::DataTypeString(dtype)));
  }
  // Every element that is written out takes a byte at least, so a longer tensor
  // can only be a short form.
  if (static_cast<size_t>(elements) > message_bytes && bytes > kMaxShortFormBytes) {
    return Bad(absl::StrCat("tensor_shape: ", elements, " elements of ", tf::DataTypeString(dtype), " (", bytes,
                            " bytes) in a message of ", message_bytes,
                            " bytes; a repeated value may stand for at most ", kMaxShortFormBytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace tessera
