#include "cpp_ext/graph/json_value.h"

#include <rapidjson/error/en.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <cmath>
#include <utility>

#include "cpp_ext/graph/json_base64.h"

namespace tessera {
namespace {

constexpr unsigned kParseFlags = rapidjson::kParseIterativeFlag | rapidjson::kParseNanAndInfFlag |
                                 rapidjson::kParseStopWhenDoneFlag | rapidjson::kParseFullPrecisionFlag;
constexpr size_t kMaxDebugBytes = 256;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

using Buffer = rapidjson::StringBuffer;
using Writer = rapidjson::PrettyWriter<Buffer>;

// Writes until there is enough. That bounds the recursion over a deeply nested value too: each level writes a byte.
class LimitedWriter {
 public:
  explicit LimitedWriter(Buffer* buffer) : buffer_(*buffer), writer_(*buffer) {
    writer_.SetFormatOptions(rapidjson::kFormatSingleLineArray);
  }
  bool Null() { return More() && writer_.Null(); }
  bool Bool(bool value) { return More() && writer_.Bool(value); }
  bool Int(int value) { return More() && writer_.Int(value); }
  bool Uint(unsigned value) { return More() && writer_.Uint(value); }
  bool Int64(int64_t value) { return More() && writer_.Int64(value); }
  bool Uint64(uint64_t value) { return More() && writer_.Uint64(value); }
  bool Double(double value) {
    if (std::isfinite(value)) return More() && writer_.Double(value);
    const std::string_view word = std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
    return More() && writer_.RawValue(word.data(), word.size(), rapidjson::kNumberType);
  }
  bool RawNumber(const char* text, rapidjson::SizeType size, bool) {
    return More() && writer_.RawNumber(text, Cut(size));
  }
  bool String(const char* text, rapidjson::SizeType size, bool) { return More() && writer_.String(text, Cut(size)); }
  bool Key(const char* text, rapidjson::SizeType size, bool) { return More() && writer_.Key(text, Cut(size)); }
  bool StartObject() { return More() && writer_.StartObject(); }
  bool EndObject(rapidjson::SizeType) { return More() && writer_.EndObject(); }
  bool StartArray() { return More() && writer_.StartArray(); }
  bool EndArray(rapidjson::SizeType) { return More() && writer_.EndArray(); }

 private:
  bool More() const { return buffer_.GetSize() < kMaxDebugBytes; }
  static rapidjson::SizeType Cut(rapidjson::SizeType size) { return size < kMaxDebugBytes ? size : kMaxDebugBytes; }

  const Buffer& buffer_;
  Writer writer_;
};

}  // namespace

Status ParseJsonObject(std::string_view text, rapidjson::Document* document) {
  if (text.empty()) return JsonError("JSON Parse error: The document is empty");
  const size_t skipped = text.substr(0, kByteOrderMark.size()) == kByteOrderMark ? kByteOrderMark.size() : 0;
  rapidjson::MemoryStream stream(text.data() + skipped, text.size() - skipped);
  document->ParseStream<kParseFlags, rapidjson::UTF8<>>(stream);
  if (document->HasParseError()) {
    return JsonError(std::string("JSON Parse error: ") + rapidjson::GetParseError_En(document->GetParseError()) +
                     " at offset: " + std::to_string(document->GetErrorOffset() + skipped));
  }
  if (!document->IsObject()) return JsonError(*document, "Is not object");
  return {};
}

Status JsonError(std::string message) { return Status(Code::kInvalidArgument, std::move(message)); }

Status JsonError(const rapidjson::Value& value, std::string_view text) {
  return JsonError("JSON Value: " + JsonDebugString(value) + " " + std::string(text));
}

std::string JsonDebugString(const rapidjson::Value& value) {
  Buffer buffer;
  LimitedWriter writer(&buffer);
  value.Accept(writer);
  return {buffer.GetString(), buffer.GetSize()};
}

const char* JsonTypeName(const rapidjson::Value& value) {
  switch (value.GetType()) {
    case rapidjson::kNullType:
      return "Null";
    case rapidjson::kFalseType:
      return "False";
    case rapidjson::kTrueType:
      return "True";
    case rapidjson::kObjectType:
      return "Object";
    case rapidjson::kArrayType:
      return "Array";
    case rapidjson::kStringType:
      return "String";
    case rapidjson::kNumberType:
      break;
  }
  return "Number";
}

const rapidjson::Value* JsonMember(const rapidjson::Value& object, std::string_view key) {
  const auto found = object.FindMember(
      rapidjson::Value(rapidjson::StringRef(key.data(), static_cast<rapidjson::SizeType>(key.size()))));
  return found == object.MemberEnd() ? nullptr : &found->value;
}

bool IsBase64Object(const rapidjson::Value& value) {
  return value.IsObject() && value.MemberCount() == 1 && JsonText(value.MemberBegin()->name) == "b64" &&
         value.MemberBegin()->value.IsString();
}

Status AppendBase64Object(const rapidjson::Value& value, std::string* out) {
  if (!IsBase64Object(value)) return JsonError(value, "not formatted correctly for base64 data");
  if (!AppendBase64Decoded(JsonText(value.MemberBegin()->value), out)) return JsonError("Unable to base64 decode");
  return {};
}

std::string JsonErrorBody(std::string_view message) {
  Buffer buffer;
  rapidjson::PrettyWriter<Buffer> writer(buffer);
  writer.StartObject();
  writer.Key("error");
  writer.String(message.data(), static_cast<rapidjson::SizeType>(message.size()));
  writer.EndObject();
  return {buffer.GetString(), buffer.GetSize()};
}

std::string StatusText(const Status& status) {
  const char* name = status.code() == Code::kUnimplemented ? "UNIMPLEMENTED: " : "INVALID_ARGUMENT: ";
  return name + status.message();
}

}  // namespace tessera
