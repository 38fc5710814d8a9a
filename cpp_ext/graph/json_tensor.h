// JSON values → tensorflow.TensorProto on the wire.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_TENSOR_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_TENSOR_H_

#include <rapidjson/document.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cpp_ext/base/status.h"

namespace tessera {

// TensorFlow's name of a dtype: "float"; "unknown dtype 99" when it has none.
std::string DataTypeName(int dtype);

// The values of one tensor, gathered from one JSON value or from one a row. Not thread-safe.
class JsonTensor {
 public:
  using Shape = std::vector<int64_t>;
  // TensorFlow's own limit of a tensor's rank.
  static constexpr size_t kMaxRank = 254;

  explicit JsonTensor(int dtype) : dtype_(dtype) {}

  // Appends `value`: a scalar, {"b64": …} for strings, or lists of equal length. `shape` is what it has.
  // INVALID_ARGUMENT, UNIMPLEMENTED: with TensorFlow Serving's texts; the tensor is of no use then.
  Status Append(const rapidjson::Value& value, Shape* shape);
  // As Append, for rows that follow each other: each must have the shape of the first.
  Status AppendRow(const rapidjson::Value& value);

  int64_t rows() const { return rows_; }
  // Appends the TensorProto of all values, which have `shape`; of all rows for the second.
  void AppendTo(const Shape& shape, std::string* wire) const;
  void AppendRowsTo(std::string* wire) const;

 private:
  const int dtype_;
  int64_t values_ = 0;
  int64_t rows_ = 0;
  int64_t row_values_ = 0;
  Shape row_shape_;
  std::string payload_;  // of `tensor_content`; for strings, whole `string_val` fields
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_TENSOR_H_
