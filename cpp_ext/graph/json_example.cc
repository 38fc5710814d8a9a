#include "cpp_ext/graph/json_example.h"

#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/json_wire.h"

namespace tessera {
namespace {

using rapidjson::Value;

constexpr uint32_t kRequestInput = 2;
constexpr uint32_t kInputExamples = 1;
constexpr uint32_t kInputExamplesWithContext = 2;
constexpr uint32_t kListExample = 1;
constexpr uint32_t kListContext = 2;
constexpr uint32_t kExampleFeatures = 1;
constexpr uint32_t kFeaturesFeature = 1;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr uint32_t kValues = 1;

// The values of one feature; the first decides the kind. The numbers are the fields of tensorflow.Feature.
class FeatureBuilder {
 public:
  explicit FeatureBuilder(std::string_view name) : name_(name) {}

  Status Add(const Value& value) {
    if (value.IsBool()) return AddInteger(value.GetBool() ? 1 : 0);
    if (value.IsString()) return AddBytes(JsonText(value));
    if (value.IsDouble()) {
      if (!Is(kFloats)) return WrongKind();
      const auto number = static_cast<float>(value.GetDouble());
      values_.append(reinterpret_cast<const char*>(&number), sizeof(number));
      return {};
    }
    if (value.IsInt64()) return AddInteger(value.GetInt64());
    if (value.IsNumber()) {
      if (!Is(kIntegers)) return WrongKind();
      return JsonError("Feature: " + std::string(name_) + " has uint64_t element. Only int64_t is supported.");
    }
    if (!IsBase64Object(value)) {
      return JsonError("Feature: " + std::string(name_) +
                       " has element with unexpected JSON type: " + JsonTypeName(value));
    }
    std::string bytes;
    Status status = AppendBase64Object(value, &bytes);
    return status.ok() ? AddBytes(bytes) : status;
  }

  // A tensorflow.Feature.
  std::string Build() const {
    std::string feature;
    if (kind_ == kNone) return feature;
    std::string list;
    if (kind_ == kBytes) {
      list = values_;
    } else {
      AppendDelimited(kValues, values_, &list);
    }
    AppendDelimited(static_cast<uint32_t>(kind_), list, &feature);
    return feature;
  }

 private:
  enum Kind : uint32_t { kNone = 0, kBytes = 1, kFloats = 2, kIntegers = 3 };

  bool Is(Kind kind) {
    if (kind_ == kNone) kind_ = kind;
    return kind_ == kind;
  }
  Status WrongKind() const {
    const char* kind = kind_ == kBytes ? "bytes" : kind_ == kFloats ? "float" : "int64";
    return JsonError("Unexpected element type in feature: " + std::string(name_) + " expecting type: " + kind);
  }
  Status AddBytes(std::string_view bytes) {
    if (!Is(kBytes)) return WrongKind();
    AppendDelimited(kValues, bytes, &values_);
    return {};
  }
  Status AddInteger(int64_t value) {
    if (!Is(kIntegers)) return WrongKind();
    AppendVarint(static_cast<uint64_t>(value), &values_);
    return {};
  }

  const std::string_view name_;
  Kind kind_ = kNone;
  std::string values_;  // packed numbers, or whole fields of bytes
};

Status AppendExample(uint32_t field, const Value& object, std::string* wire) {
  if (!object.IsObject()) {
    return JsonError(std::string("Example must be JSON object but got JSON ") + JsonTypeName(object));
  }
  std::string features;
  for (const auto& member : object.GetObject()) {
    FeatureBuilder feature(JsonText(member.name));
    Status status;
    if (member.value.IsArray()) {
      for (const Value& value : member.value.GetArray()) {
        if (status.ok()) status = feature.Add(value);
      }
    } else {
      status = feature.Add(member.value);
    }
    if (!status.ok()) return status;
    std::string entry;
    AppendDelimited(kMapKey, JsonText(member.name), &entry);
    AppendDelimited(kMapValue, feature.Build(), &entry);
    AppendDelimited(kFeaturesFeature, entry, &features);
  }
  std::string example;
  AppendDelimited(kExampleFeatures, features, &example);
  AppendDelimited(field, example, wire);
  return {};
}

}  // namespace

Status AppendExamples(const rapidjson::Document& document, std::string* wire) {
  std::string list;
  const Value* context = JsonMember(document, "context");
  if (context != nullptr) {
    Status status = AppendExample(kListContext, *context, &list);
    if (!status.ok()) return status;
  }
  const Value* examples = JsonMember(document, "examples");
  if (examples == nullptr) {
    return JsonError(document, "When method is classify, key 'examples' is expected and was not found");
  }
  if (!examples->IsArray()) return JsonError(document, "Expecting 'examples' value to be an list/array");
  if (examples->Empty()) return JsonError(document, "'examples' value is an empty array");
  for (const Value& example : examples->GetArray()) {
    Status status = AppendExample(kListExample, example, &list);
    if (!status.ok()) return status;
  }
  std::string input;
  AppendDelimited(context != nullptr ? kInputExamplesWithContext : kInputExamples, list, &input);
  AppendDelimited(kRequestInput, input, wire);
  return {};
}

}  // namespace tessera
