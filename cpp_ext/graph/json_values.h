// tensorflow.TensorProto on the wire → JSON values. Reads what the native core writes: all values of a tensor, in typed
// fields or as content.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_VALUES_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_VALUES_H_

#include <rapidjson/prettywriter.h>
#include <rapidjson/stringbuffer.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

using JsonWriter = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

void WriteJsonDecimal(float value, JsonWriter* writer);

// The values of one tensor; views into the message. Not thread-safe.
class JsonValues {
 public:
  // INVALID_ARGUMENT: a dtype that JSON cannot hold. INTERNAL: not as many values as the shape says.
  // Throws protozero::exception when the message cannot be parsed.
  Status Init(std::string_view tensor_proto);

  const std::vector<int64_t>& shape() const { return shape_; }
  // `base64`: strings are written as {"b64": …}.
  void set_base64(bool base64) { base64_ = base64; }
  // Writes the next part of the values, those below dimension `dim`: all of them for 0, a row for 1.
  void WriteNext(size_t dim, JsonWriter* writer);

 private:
  Status ReadStringContent(std::string_view content);
  void ReadPackedVarints(std::string_view packed);
  void WriteScalar(JsonWriter* writer);

  int dtype_ = 0;
  bool base64_ = false;
  std::vector<int64_t> shape_;
  std::string raw_copy_;                   // what `raw_` views when the values had to be gathered
  std::string_view raw_;                   // fixed-width values, little-endian
  std::vector<int64_t> integers_;          // values that came as varints
  std::vector<std::string_view> strings_;  // of a string tensor
  bool in_integers_ = false;
  size_t next_ = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_VALUES_H_
