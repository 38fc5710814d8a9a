// What all of the REST API's JSON shares: the parser's settings, and the texts that quote a value. RapidJSON because
// it is TensorFlow Serving's parser: what it accepts, and how it says what it does not, are part of the API.
//
// Functions are pure and may be called from any thread.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_VALUE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_VALUE_H_

#include <rapidjson/document.h>

#include <string>
#include <string_view>

#include "cpp_ext/base/status.h"

namespace tessera {

// Parses one object. NaN and ±Infinity are numbers, what follows the object is ignored, nesting may be as deep as it
// likes. INVALID_ARGUMENT otherwise. Numbers are read exactly, which costs long ones some nanoseconds.
Status ParseJsonObject(std::string_view text, rapidjson::Document* document);

Status JsonError(std::string message);  // INVALID_ARGUMENT
// "JSON Value: <value> <text>", with about the first 256 bytes of the value.
Status JsonError(const rapidjson::Value& value, std::string_view text);
std::string JsonDebugString(const rapidjson::Value& value);
const char* JsonTypeName(const rapidjson::Value& value);

inline std::string_view JsonText(const rapidjson::Value& string) {
  return {string.GetString(), string.GetStringLength()};
}
// Null when the object has no such member.
const rapidjson::Value* JsonMember(const rapidjson::Value& object, std::string_view key);

// Whether `value` is {"b64": "<text>"}, which stands for bytes.
bool IsBase64Object(const rapidjson::Value& value);
// Appends the bytes. INVALID_ARGUMENT: it is another object, or the text is not Base64.
Status AppendBase64Object(const rapidjson::Value& value, std::string* out);

// {"error": <message>}, as TensorFlow Serving prints it.
std::string JsonErrorBody(std::string_view message);

// "INVALID_ARGUMENT: <message>".
std::string StatusText(const Status& status);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_VALUE_H_
