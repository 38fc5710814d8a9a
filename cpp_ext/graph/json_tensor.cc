#include "cpp_ext/graph/json_tensor.h"

#include <string_view>
#include <type_traits>

#include "cpp_ext/graph/json_dtype.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/json_wire.h"

namespace tessera {
namespace {

using rapidjson::Value;

constexpr uint32_t kTensorDtype = 1;
constexpr uint32_t kTensorShape = 2;
constexpr uint32_t kTensorContent = 4;
constexpr uint32_t kTensorStrings = 8;
constexpr uint32_t kShapeDim = 2;
constexpr uint32_t kDimSize = 1;

constexpr const char* kNames[] = {"invalid",    "float",  "double",    "int32",   "uint8",   "int16",
                                  "int8",       "string", "complex64", "int64",   "bool",    "qint8",
                                  "quint8",     "qint32", "bfloat16",  "qint16",  "quint16", "uint16",
                                  "complex128", "half",   "resource",  "variant", "uint32",  "uint64"};

template <typename T>
void AppendRaw(T value, std::string* to) {
  to->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

Status TypeError(const Value& value, int dtype) {
  return JsonError(value,
                   std::string("Type: ") + JsonTypeName(value) + " is not of expected type: " + DataTypeName(dtype));
}

// What RapidJSON can tell a number that fits from one that does not by.
template <typename T>
using Checked = std::conditional_t<sizeof(T) < sizeof(int), int, T>;

// Integers of 8 and 16 bits are cut, as TensorFlow Serving cuts them.
template <typename T>
bool AppendScalar(const Value& value, std::string* to) {
  if constexpr (std::is_same_v<T, std::string_view>) {
    if (!value.IsString()) return false;
    AppendDelimited(kTensorStrings, JsonText(value), to);
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.IsBool()) return false;
    AppendRaw(static_cast<uint8_t>(value.GetBool()), to);
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.IsNumber()) return false;
    AppendRaw(static_cast<T>(value.GetDouble()), to);
  } else {
    if (!value.Is<Checked<T>>()) return false;
    AppendRaw(static_cast<T>(value.Get<Checked<T>>()), to);
  }
  return true;
}

template <typename Dtype>
Status AppendLeaf(const Value& value, std::string* to) {
  if (AppendScalar<typename Dtype::Value>(value, to)) return {};
  if (Dtype::kNumber != kJsonString || !value.IsObject()) return TypeError(value, Dtype::kNumber);
  std::string bytes;
  Status status = AppendBase64Object(value, &bytes);
  if (status.ok()) AppendDelimited(kTensorStrings, bytes, to);
  return status;
}

// The recursion is as deep as `shape` at most.
template <typename Dtype>
Status Fill(const Value& value, size_t level, const JsonTensor::Shape& shape, int64_t* count, std::string* to) {
  if (!value.IsArray()) {
    if (level != shape.size()) {
      return JsonError(value, "found at incorrect level: " + std::to_string(level + 1) +
                                  " in the JSON DOM. Expected at level: " + std::to_string(shape.size()));
    }
    ++*count;
    return AppendLeaf<Dtype>(value, to);
  }
  if (level >= shape.size()) {
    return JsonError("Encountered list at unexpected level: " + std::to_string(level) + " expected < " +
                     std::to_string(shape.size()));
  }
  if (value.Size() != static_cast<size_t>(shape[level])) {
    return JsonError("Encountered list at unexpected size: " + std::to_string(value.Size()) +
                     " at level: " + std::to_string(level) + " expected size: " + std::to_string(shape[level]));
  }
  const bool leaves = level + 1 == shape.size();
  for (const Value& element : value.GetArray()) {
    if (leaves && !element.IsArray() && AppendScalar<typename Dtype::Value>(element, to)) {
      ++*count;
      continue;
    }
    Status status = Fill<Dtype>(element, level + 1, shape, count, to);
    if (!status.ok()) return status;
  }
  return {};
}

Status FillOf(int dtype, const Value& value, const JsonTensor::Shape& shape, int64_t* count, std::string* to) {
  Status status;
  const bool known =
      VisitJsonDtype(dtype, [&](auto entry) { status = Fill<decltype(entry)>(value, /*level=*/0, shape, count, to); });
  if (known) return status;
  const Value* leaf = &value;
  while (leaf->IsArray() && !leaf->Empty()) leaf = &(*leaf)[0];
  if (leaf->IsArray()) return {};  // nothing in it that would have to be converted
  if (leaf->IsObject()) return TypeError(*leaf, dtype);
  return Status(Code::kUnimplemented,
                "Conversion of JSON Value: " + JsonDebugString(*leaf) + " to type: " + DataTypeName(dtype));
}

Status ShapeOf(const Value& value, JsonTensor::Shape* shape) {
  shape->clear();
  for (const Value* inner = &value; inner->IsArray(); inner = &(*inner)[0]) {
    if (shape->size() == JsonTensor::kMaxRank) {
      return JsonError(value, "is nested more than " + std::to_string(JsonTensor::kMaxRank) + " lists deep");
    }
    shape->push_back(inner->Size());
    if (inner->Empty()) break;
  }
  return {};
}

std::string ShapeText(const JsonTensor::Shape& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? "," : "") + std::to_string(size);
  return text + "]";
}

}  // namespace

std::string DataTypeName(int dtype) {
  if (dtype >= 0 && static_cast<size_t>(dtype) < std::size(kNames)) return kNames[dtype];
  return "unknown dtype " + std::to_string(dtype);
}

Status JsonTensor::Append(const Value& value, Shape* shape) {
  Status status = ShapeOf(value, shape);
  return status.ok() ? FillOf(dtype_, value, *shape, &values_, &payload_) : status;
}

Status JsonTensor::AppendRow(const Value& value) {
  Shape shape;
  values_ = 0;
  Status status = Append(value, &shape);
  if (!status.ok()) return status;
  if (rows_++ == 0) {
    row_shape_ = std::move(shape);
    row_values_ = values_;
  } else if (values_ != row_values_) {
    return JsonError("Expecting tensor size: " + std::to_string(row_values_) + " but got: " + std::to_string(values_));
  } else if (shape != row_shape_) {
    return JsonError("Expecting shape " + ShapeText(row_shape_) + " but got: " + ShapeText(shape));
  }
  return {};
}

void JsonTensor::AppendTo(const Shape& shape, std::string* wire) const {
  std::string dims;
  for (const int64_t size : shape) {
    std::string dim;
    if (size != 0) AppendVarintField(kDimSize, static_cast<uint64_t>(size), &dim);
    AppendDelimited(kShapeDim, dim, &dims);
  }
  AppendVarintField(kTensorDtype, static_cast<uint64_t>(dtype_), wire);
  AppendDelimited(kTensorShape, dims, wire);
  if (dtype_ == kJsonString) {
    wire->append(payload_);
  } else if (!payload_.empty()) {
    AppendDelimited(kTensorContent, payload_, wire);
  }
}

void JsonTensor::AppendRowsTo(std::string* wire) const {
  Shape shape{rows_};
  shape.insert(shape.end(), row_shape_.begin(), row_shape_.end());
  AppendTo(shape, wire);
}

}  // namespace tessera
