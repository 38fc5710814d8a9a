#include "cpp_ext/graph/json_encode.h"

#include <map>
#include <protozero/pbf_reader.hpp>

#include "cpp_ext/graph/json_values.h"

namespace tessera {
namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr uint32_t kResponseOutputs = 1;
constexpr uint32_t kResponseResult = 1;
constexpr uint32_t kMapKey = 1;
constexpr uint32_t kMapValue = 2;
constexpr std::string_view kBytesSuffix = "_bytes";

using Outputs = std::map<std::string_view, JsonValues>;

std::string_view View(protozero::data_view view) { return {view.data(), view.size()}; }

bool IsDelimited(const pbf_reader& reader, uint32_t tag) {
  return reader.tag() == tag && reader.wire_type() == pbf_wire_type::length_delimited;
}

// Calls `visit` with each length-delimited field `tag`.
template <typename Visit>
void ForEach(std::string_view message, uint32_t tag, Visit visit) {
  pbf_reader reader(message.data(), message.size());
  while (reader.next()) {
    if (IsDelimited(reader, tag)) {
      visit(View(reader.get_view()));
    } else {
      reader.skip();
    }
  }
}

Status ReadOutputs(std::string_view response, Outputs* outputs) {
  Status status;
  ForEach(response, kResponseOutputs, [&](std::string_view entry) {
    std::string_view alias, tensor;
    ForEach(entry, kMapKey, [&](std::string_view key) { alias = key; });
    ForEach(entry, kMapValue, [&](std::string_view value) { tensor = value; });
    JsonValues& values = (*outputs)[alias];
    values.set_base64(alias.size() >= kBytesSuffix.size() &&
                      alias.substr(alias.size() - kBytesSuffix.size()) == kBytesSuffix);
    if (status.ok()) status = values.Init(tensor);
  });
  if (status.ok() && outputs->empty()) {
    return Status(Code::kInvalidArgument, "Cannot convert empty tensor map to JSON");
  }
  return status;
}

void WriteKey(std::string_view key, JsonWriter* writer) {
  writer->Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
}

Status WriteRows(Outputs* outputs, JsonWriter* writer) {
  int64_t rows = -1;
  for (const auto& [alias, values] : *outputs) {
    const std::string name = "Tensor name: " + std::string(alias);
    if (values.shape().empty()) return Status(Code::kInvalidArgument, name + " has no shape information ");
    if (rows >= 0 && values.shape()[0] != rows) {
      return Status(Code::kInvalidArgument, name +
                                                " has inconsistent batch size: " + std::to_string(values.shape()[0]) +
                                                " expecting: " + std::to_string(rows));
    }
    rows = values.shape()[0];
  }
  const bool named = outputs->size() > 1;
  WriteKey("predictions", writer);
  writer->StartArray();
  for (int64_t row = 0; row < rows; ++row) {
    if (named) writer->StartObject();
    writer->SetFormatOptions(rapidjson::kFormatSingleLineArray);
    for (auto& [alias, values] : *outputs) {
      if (named) WriteKey(alias, writer);
      values.WriteNext(1, writer);
    }
    writer->SetFormatOptions(rapidjson::kFormatDefault);
    if (named) writer->EndObject();
  }
  writer->EndArray();
  return {};
}

void WriteColumns(Outputs* outputs, JsonWriter* writer) {
  const bool named = outputs->size() > 1;
  WriteKey("outputs", writer);
  if (named) writer->StartObject();
  for (auto& [alias, values] : *outputs) {
    if (named) WriteKey(alias, writer);
    values.WriteNext(0, writer);
  }
  if (named) writer->EndObject();
}

// One object that `write` fills; what the message's parser throws becomes INTERNAL.
template <typename Write>
Status ToJson(std::string* json, Write write) {
  rapidjson::StringBuffer buffer;
  JsonWriter writer(buffer);
  writer.StartObject();
  try {
    Status status = write(&writer);
    if (!status.ok()) return status;
  } catch (const protozero::exception& error) {
    return Status(Code::kInternal, std::string("a response cannot be parsed: ") + error.what());
  }
  writer.EndObject();
  json->assign(buffer.GetString(), buffer.GetSize());
  return {};
}

float ReadFloat(std::string_view message, uint32_t tag) {
  pbf_reader reader(message.data(), message.size());
  float value = 0;
  while (reader.next()) {
    if (reader.tag() == tag && reader.wire_type() == pbf_wire_type::fixed32) {
      value = reader.get_float();
    } else {
      reader.skip();
    }
  }
  return value;
}

void WriteClass(std::string_view message, JsonWriter* writer) {
  constexpr uint32_t kLabel = 1;
  constexpr uint32_t kScore = 2;
  std::string_view label;
  ForEach(message, kLabel, [&](std::string_view value) { label = value; });
  writer->StartArray();
  writer->String(label.data(), static_cast<rapidjson::SizeType>(label.size()));
  WriteJsonDecimal(ReadFloat(message, kScore), writer);
  writer->EndArray();
}

}  // namespace

Status PredictResponseToJson(std::string_view response, JsonFormat format, std::string* json) {
  return ToJson(json, [&](JsonWriter* writer) {
    Outputs outputs;
    Status status = ReadOutputs(response, &outputs);
    if (!status.ok()) return status;
    if (format == JsonFormat::kRow) return WriteRows(&outputs, writer);
    WriteColumns(&outputs, writer);
    return Status();
  });
}

Status ClassificationResponseToJson(std::string_view response, std::string* json) {
  constexpr uint32_t kClassifications = 1;
  constexpr uint32_t kClasses = 1;
  return ToJson(json, [&](JsonWriter* writer) {
    bool empty = true;
    WriteKey("results", writer);
    writer->StartArray();
    ForEach(response, kResponseResult, [&](std::string_view result) {
      ForEach(result, kClassifications, [&](std::string_view classes) {
        empty = false;
        writer->SetFormatOptions(rapidjson::kFormatSingleLineArray);
        writer->StartArray();
        ForEach(classes, kClasses, [&](std::string_view one) { WriteClass(one, writer); });
        writer->EndArray();
        writer->SetFormatOptions(rapidjson::kFormatDefault);
      });
    });
    writer->EndArray();
    if (empty) return Status(Code::kInvalidArgument, "Cannot convert empty ClassificationResults to JSON");
    return Status();
  });
}

Status RegressionResponseToJson(std::string_view response, std::string* json) {
  constexpr uint32_t kRegressions = 1;
  constexpr uint32_t kValue = 1;
  return ToJson(json, [&](JsonWriter* writer) {
    bool empty = true;
    WriteKey("results", writer);
    writer->SetFormatOptions(rapidjson::kFormatSingleLineArray);
    writer->StartArray();
    ForEach(response, kResponseResult, [&](std::string_view result) {
      ForEach(result, kRegressions, [&](std::string_view regression) {
        empty = false;
        WriteJsonDecimal(ReadFloat(regression, kValue), writer);
      });
    });
    writer->EndArray();
    if (empty) return Status(Code::kInvalidArgument, "Cannot convert empty RegressionResults to JSON");
    return Status();
  });
}

}  // namespace tessera
