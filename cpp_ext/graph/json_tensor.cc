#include "cpp_ext/graph/json_tensor.h"

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

// Integers of 8 and 16 bits are cut, as TensorFlow Serving cuts them.
template <int dtype>
bool AppendScalar(const Value& value, std::string* to) {
  if constexpr (dtype == kJsonFloat) {
    if (!value.IsNumber()) return false;
    AppendRaw(static_cast<float>(value.GetDouble()), to);
  } else if constexpr (dtype == kJsonDouble) {
    if (!value.IsNumber()) return false;
    AppendRaw(value.GetDouble(), to);
  } else if constexpr (dtype == kJsonInt32) {
    if (!value.IsInt()) return false;
    AppendRaw(value.GetInt(), to);
  } else if constexpr (dtype == kJsonInt16) {
    if (!value.IsInt()) return false;
    AppendRaw(static_cast<int16_t>(value.GetInt()), to);
  } else if constexpr (dtype == kJsonInt8 || dtype == kJsonUint8) {
    if (!value.IsInt()) return false;
    AppendRaw(static_cast<uint8_t>(value.GetInt()), to);
  } else if constexpr (dtype == kJsonInt64) {
    if (!value.IsInt64()) return false;
    AppendRaw(value.GetInt64(), to);
  } else if constexpr (dtype == kJsonUint32) {
    if (!value.IsUint()) return false;
    AppendRaw(value.GetUint(), to);
  } else if constexpr (dtype == kJsonUint64) {
    if (!value.IsUint64()) return false;
    AppendRaw(value.GetUint64(), to);
  } else if constexpr (dtype == kJsonBool) {
    if (!value.IsBool()) return false;
    AppendRaw(static_cast<uint8_t>(value.GetBool()), to);
  } else {
    static_assert(dtype == kJsonString);
    if (!value.IsString()) return false;
    AppendDelimited(kTensorStrings, JsonText(value), to);
  }
  return true;
}

template <int dtype>
Status AppendLeaf(const Value& value, std::string* to) {
  if (AppendScalar<dtype>(value, to)) return {};
  if (dtype != kJsonString || !value.IsObject()) return TypeError(value, dtype);
  std::string bytes;
  Status status = AppendBase64Object(value, &bytes);
  if (status.ok()) AppendDelimited(kTensorStrings, bytes, to);
  return status;
}

// The recursion is as deep as `shape` at most.
template <int dtype>
Status Fill(const Value& value, size_t level, const JsonTensor::Shape& shape, int64_t* count, std::string* to) {
  if (!value.IsArray()) {
    if (level != shape.size()) {
      return JsonError(value, "found at incorrect level: " + std::to_string(level + 1) +
                                  " in the JSON DOM. Expected at level: " + std::to_string(shape.size()));
    }
    ++*count;
    return AppendLeaf<dtype>(value, to);
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
    if (leaves && !element.IsArray() && AppendScalar<dtype>(element, to)) {
      ++*count;
      continue;
    }
    Status status = Fill<dtype>(element, level + 1, shape, count, to);
    if (!status.ok()) return status;
  }
  return {};
}

Status FillOf(int dtype, const Value& value, const JsonTensor::Shape& shape, int64_t* count, std::string* to) {
  switch (dtype) {
    case kJsonFloat:
      return Fill<kJsonFloat>(value, 0, shape, count, to);
    case kJsonDouble:
      return Fill<kJsonDouble>(value, 0, shape, count, to);
    case kJsonInt32:
      return Fill<kJsonInt32>(value, 0, shape, count, to);
    case kJsonInt16:
      return Fill<kJsonInt16>(value, 0, shape, count, to);
    case kJsonInt8:
      return Fill<kJsonInt8>(value, 0, shape, count, to);
    case kJsonUint8:
      return Fill<kJsonUint8>(value, 0, shape, count, to);
    case kJsonInt64:
      return Fill<kJsonInt64>(value, 0, shape, count, to);
    case kJsonUint32:
      return Fill<kJsonUint32>(value, 0, shape, count, to);
    case kJsonUint64:
      return Fill<kJsonUint64>(value, 0, shape, count, to);
    case kJsonBool:
      return Fill<kJsonBool>(value, 0, shape, count, to);
    case kJsonString:
      return Fill<kJsonString>(value, 0, shape, count, to);
    default:
      break;
  }
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
