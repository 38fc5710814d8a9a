#include "cpp_ext/graph/json_decode.h"

#include <algorithm>

#include "cpp_ext/graph/json_tensor.h"
#include "cpp_ext/graph/json_value.h"
#include "cpp_ext/graph/json_wire.h"

namespace tessera {
namespace {

using rapidjson::Value;

constexpr uint32_t kRequestInputs = 2;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;

void AppendInput(std::string_view alias, std::string_view tensor, std::string* wire) {
  std::string entry;
  entry.reserve(alias.size() + tensor.size() + 16);
  AppendDelimited(kMapKey, alias, &entry);
  AppendDelimited(kMapValue, tensor, &entry);
  AppendDelimited(kRequestInputs, entry, wire);
}

bool IsNamed(const Value& element) { return element.IsObject() && !IsBase64Object(element); }

std::string Aliases(const std::vector<JsonInput>& inputs) {
  std::string text;
  for (const JsonInput& input : inputs) text += (text.empty() ? "" : ",") + std::string(input.alias);
  return text;
}

Status RowError(size_t row, std::string_view key, const Status& status) {
  const std::string where = key.empty() ? std::string() : " key: " + std::string(key);
  return JsonError("Failed to process element: " + std::to_string(row) + where +
                   " of 'instances' list. Error: " + StatusText(status));
}

Status AppendNamedRow(const Value& element, size_t row, const std::vector<JsonInput>& inputs,
                      std::vector<JsonTensor>* tensors) {
  for (const auto& member : element.GetObject()) {
    const std::string_view key = JsonText(member.name);
    const auto input = std::lower_bound(inputs.begin(), inputs.end(), key,
                                        [](const JsonInput& a, std::string_view b) { return a.alias < b; });
    Status status = input == inputs.end() || input->alias != key
                        ? JsonError("JSON object: does not have named input: " + std::string(key))
                        : (*tensors)[static_cast<size_t>(input - inputs.begin())].AppendRow(member.value);
    if (!status.ok()) return RowError(row, key, status);
  }
  const auto complete = [row](const JsonTensor& tensor) { return tensor.rows() == static_cast<int64_t>(row) + 1; };
  if (std::all_of(tensors->begin(), tensors->end(), complete)) return {};  // a key that is there twice is not either
  return JsonError("Failed to process element: " + std::to_string(row) + " of 'instances' list. JSON object: " +
                   JsonDebugString(element) + " keys must be equal to: " + Aliases(inputs));
}

Status AppendRows(const Value& instances, const std::vector<JsonInput>& inputs, std::string* wire) {
  const bool named = IsNamed(instances[0]);
  if (!named && inputs.size() > 1) {
    return JsonError(
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map");
  }
  std::vector<JsonTensor> tensors;
  for (const JsonInput& input : inputs) tensors.emplace_back(input.dtype);
  size_t row = 0;
  for (const Value& element : instances.GetArray()) {
    if (IsNamed(element) != named) {
      return JsonError(
          (named ? "Expecting object but got list at item " : "Expecting value/list but got object at item ") +
          std::to_string(row) + " of input list");
    }
    if (named) {
      Status status = AppendNamedRow(element, row, inputs, &tensors);
      if (!status.ok()) return status;
    } else if (Status status = tensors[0].AppendRow(element); !status.ok()) {
      return RowError(row, "", status);
    }
    ++row;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    std::string tensor;
    tensors[i].AppendRowsTo(&tensor);
    AppendInput(inputs[i].alias, tensor, wire);
  }
  return {};
}

Status AppendColumn(const Value& value, const JsonInput& input, std::string* wire) {
  JsonTensor tensor(input.dtype);
  JsonTensor::Shape shape;
  Status status = tensor.Append(value, &shape);
  if (!status.ok()) return status;
  std::string proto;
  tensor.AppendTo(shape, &proto);
  AppendInput(input.alias, proto, wire);
  return {};
}

Status AppendColumns(const Value& values, const std::vector<JsonInput>& inputs, std::string* wire) {
  if (!IsNamed(values)) {
    if (inputs.size() == 1) return AppendColumn(values, inputs[0], wire);
    return JsonError(
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map");
  }
  for (const JsonInput& input : inputs) {
    const Value* value = JsonMember(values, input.alias);
    if (value == nullptr) return JsonError("Missing named input: " + std::string(input.alias) + " in 'inputs' object.");
    Status status = AppendColumn(*value, input, wire);
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace

Status JsonSignatureName(const rapidjson::Document& document, std::string_view* name) {
  const Value* value = JsonMember(document, "signature_name");
  *name = {};
  if (value == nullptr) return {};
  if (!value->IsString()) {
    return JsonError(document, "not formatted correctly. 'signature_name' key must be a string value.");
  }
  *name = JsonText(*value);
  return {};
}

Status AppendPredictInputs(const rapidjson::Document& document, const std::vector<JsonInput>& inputs,
                           std::string_view signature, JsonFormat* format, std::string* wire) {
  if (inputs.empty()) {
    return JsonError("Failed to get input map for signature: " +
                     std::string(signature.empty() ? "DEFAULT" : signature));
  }
  const Value* rows = JsonMember(document, "instances");
  const Value* columns = JsonMember(document, "inputs");
  if (rows != nullptr && columns != nullptr) {
    return JsonError(document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ");
  }
  if (columns != nullptr) {
    *format = JsonFormat::kColumnar;
    return AppendColumns(*columns, inputs, wire);
  }
  if (rows == nullptr) return JsonError("Missing 'inputs' or 'instances' key");
  *format = JsonFormat::kRow;
  if (!rows->IsArray()) return JsonError(document, "Expecting 'instances' to be an list/array");
  if (rows->Empty()) return JsonError(document, "No values in 'instances' array");
  return AppendRows(*rows, inputs, wire);
}

}  // namespace tessera
