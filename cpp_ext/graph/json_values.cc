#include "cpp_ext/graph/json_values.h"

#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <type_traits>

#include "cpp_ext/graph/json_base64.h"
#include "cpp_ext/graph/json_dtype.h"
#include "cpp_ext/graph/json_number.h"
#include "cpp_ext/graph/json_tensor.h"

namespace tessera {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr uint32_t kTensorDtype = 1;
constexpr uint32_t kTensorShape = 2;
constexpr uint32_t kTensorContent = 4;
constexpr uint32_t kTensorStrings = 8;
constexpr uint32_t kShapeDim = 2;
constexpr uint32_t kDimSize = 1;
constexpr size_t kMaxEmptyLists = 1 << 24;
constexpr uint32_t kFloats = 5;
constexpr uint32_t kDoubles = 6;

// Of a value as content; REQUIRES: a dtype of fixed width.
size_t WidthBytes(int dtype) {
  size_t width = 0;
  VisitJsonDtype(dtype, [&](auto entry) { width = sizeof(typename decltype(entry)::Value); });
  return width;
}

// The typed field that holds the values of `dtype`; 0 if JSON cannot hold it.
uint32_t FieldOf(int dtype) {
  uint32_t field = 0;
  VisitJsonDtype(dtype, [&](auto entry) { field = entry.kField; });
  return field;
}

std::string_view View(protozero::data_view view) { return {view.data(), view.size()}; }

Status ReadShape(pbf_reader shape, std::vector<int64_t>* sizes) {
  while (shape.next()) {
    if (shape.tag() != kShapeDim || shape.wire_type() != pbf_wire_type::length_delimited) {
      shape.skip();
      continue;
    }
    pbf_reader dim = shape.get_message();
    int64_t size = 0;
    while (dim.next()) {
      if (dim.tag() == kDimSize && dim.wire_type() == pbf_wire_type::varint) {
        size = dim.get_int64();
      } else {
        dim.skip();
      }
    }
    if (size < 0) return Status(Code::kInternal, "a response has a tensor of unknown shape");
    sizes->push_back(size);
  }
  return {};
}

template <typename T>
T ReadRaw(std::string_view raw, size_t index) {
  T value;
  memcpy(&value, raw.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void WriteDecimal(T value, JsonWriter* writer) {
  char buffer[kDecimalBytes];
  const std::string_view text = PrintDecimal(value, buffer);
  writer->RawValue(text.data(), text.size(), rapidjson::kNumberType);
}

template <typename T>
void WriteNumber(std::string_view raw, size_t index, JsonWriter* writer) {
  if constexpr (std::is_same_v<T, bool>) {
    writer->Bool(ReadRaw<uint8_t>(raw, index) != 0);
  } else if constexpr (std::is_floating_point_v<T>) {
    WriteDecimal(ReadRaw<T>(raw, index), writer);
  } else if constexpr (std::is_signed_v<T>) {
    writer->Int64(ReadRaw<T>(raw, index));
  } else {
    writer->Uint64(ReadRaw<T>(raw, index));
  }
}

}  // namespace

void WriteJsonDecimal(float value, JsonWriter* writer) { WriteDecimal(value, writer); }

Status JsonValues::Init(std::string_view tensor_proto) {
  // The fields come in the order of their numbers from the core; others may have another order.
  uint32_t field = 0;
  bool has_content = false;
  std::vector<std::string_view> chunks;  // of packed values
  for (int pass = 0; pass < 2; ++pass) {
    pbf_reader message(tensor_proto.data(), tensor_proto.size());
    while (message.next()) {
      const bool delimited = message.wire_type() == pbf_wire_type::length_delimited;
      if (pass == 0 && message.tag() == kTensorDtype && message.wire_type() == pbf_wire_type::varint) {
        dtype_ = message.get_int32();
      } else if (pass == 0 && message.tag() == kTensorShape && delimited) {
        Status status = ReadShape(message.get_message(), &shape_);
        if (!status.ok()) return status;
      } else if (pass == 1 && message.tag() == kTensorContent && delimited) {
        raw_ = View(message.get_view());
        has_content = !raw_.empty();
      } else if (pass == 1 && message.tag() == field && delimited) {
        if (field == kTensorStrings) {
          strings_.push_back(View(message.get_view()));
        } else {
          chunks.push_back(View(message.get_view()));
        }
      } else {
        message.skip();
      }
    }
    field = FieldOf(dtype_);
    if (field == 0) {
      return Status(Code::kInvalidArgument, "Failed to write JSON value for tensor type: " + DataTypeName(dtype_));
    }
  }
  size_t elements = 1;
  for (const int64_t size : shape_) {
    if (__builtin_mul_overflow(elements, static_cast<size_t>(size), &elements)) {
      return Status(Code::kInternal, "a response has a tensor of more elements than memory can hold");
    }
  }
  size_t lists = 1;  // that have to be printed though nothing is in them
  for (size_t i = 0; elements == 0 && shape_[i] != 0; ++i) {
    if (__builtin_mul_overflow(lists, static_cast<size_t>(shape_[i]), &lists) || lists > kMaxEmptyLists) {
      return Status(Code::kInvalidArgument,
                    "JSON would have more than " + std::to_string(kMaxEmptyLists) + " empty lists for a tensor");
    }
  }
  size_t values = 0;
  if (dtype_ == kJsonString) {
    if (has_content) {
      Status status = ReadStringContent(raw_);
      if (!status.ok()) return status;
    }
    values = strings_.size();
  } else if (has_content) {
    if (raw_.size() % WidthBytes(dtype_) == 0) values = raw_.size() / WidthBytes(dtype_);
  } else if (field == kFloats || field == kDoubles) {
    if (chunks.size() == 1) {
      raw_ = chunks[0];
    } else {
      for (const std::string_view chunk : chunks) raw_copy_.append(chunk);
      raw_ = raw_copy_;
    }
    values = raw_.size() / WidthBytes(dtype_);
  } else {
    in_integers_ = true;
    for (const std::string_view chunk : chunks) ReadPackedVarints(chunk);
    values = integers_.size();
  }
  if (values == elements) return {};
  return Status(Code::kInternal, "a response has a tensor of " + std::to_string(elements) + " elements with " +
                                     std::to_string(values) + " values");
}

// `content` has the lengths of all strings, and then their bytes.
Status JsonValues::ReadStringContent(std::string_view content) {
  size_t elements = 1;
  for (const int64_t size : shape_) elements *= static_cast<size_t>(size);
  const char* at = content.data();
  const char* const end = at + content.size();
  std::vector<uint64_t> sizes;
  for (size_t i = 0; i < elements; ++i) sizes.push_back(protozero::decode_varint(&at, end));
  for (const uint64_t size : sizes) {
    if (size > static_cast<uint64_t>(end - at)) return Status(Code::kInternal, "a response has a cut string");
    strings_.emplace_back(at, size);
    at += size;
  }
  return {};
}

void JsonValues::ReadPackedVarints(std::string_view packed) {
  const char* at = packed.data();
  const char* const end = at + packed.size();
  while (at != end) integers_.push_back(static_cast<int64_t>(protozero::decode_varint(&at, end)));
}

void JsonValues::WriteNext(size_t dim, JsonWriter* writer) {
  if (dim >= shape_.size()) return WriteScalar(writer);
  writer->StartArray();
  for (int64_t i = 0; i < shape_[dim]; ++i) WriteNext(dim + 1, writer);
  writer->EndArray();
}

void JsonValues::WriteScalar(JsonWriter* writer) {
  const size_t at = next_++;
  if (in_integers_) {
    if (dtype_ == kJsonBool) {
      writer->Bool(integers_[at] != 0);
    } else if (dtype_ == kJsonUint64) {
      writer->Uint64(static_cast<uint64_t>(integers_[at]));
    } else {
      writer->Int64(integers_[at]);
    }
    return;
  }
  if (dtype_ != kJsonString) {
    VisitJsonDtype(dtype_, [&](auto entry) {
      using T = typename decltype(entry)::Value;
      if constexpr (!std::is_same_v<T, std::string_view>) WriteNumber<T>(raw_, at, writer);
    });
    return;
  }
  const std::string_view text = strings_[at];
  if (!base64_) return static_cast<void>(writer->String(text.data(), static_cast<rapidjson::SizeType>(text.size())));
  std::string encoded;
  AppendBase64Encoded(text, &encoded);
  writer->StartObject();
  writer->Key("b64");
  writer->String(encoded.data(), static_cast<rapidjson::SizeType>(encoded.size()));
  writer->EndObject();
}

}  // namespace tessera
