// The dtypes whose values JSON can hold, in one table.
#ifndef TESSERA_CPP_EXT_GRAPH_JSON_DTYPE_H_
#define TESSERA_CPP_EXT_GRAPH_JSON_DTYPE_H_

#include <cstdint>
#include <string_view>
#include <tuple>

namespace tessera {

// The numbers of tensorflow.DataType.
enum : int {
  kJsonFloat = 1,
  kJsonDouble = 2,
  kJsonInt32 = 3,
  kJsonUint8 = 4,
  kJsonInt16 = 5,
  kJsonInt8 = 6,
  kJsonString = 7,
  kJsonInt64 = 9,
  kJsonBool = 10,
  kJsonUint32 = 22,
  kJsonUint64 = 23
};

// `T` is what a value is in memory, `field` the typed field of a TensorProto that holds the values.
template <int number, typename T, uint32_t field>
struct JsonDtype {
  static constexpr int kNumber = number;
  static constexpr uint32_t kField = field;
  using Value = T;
};

// The most frequent ones first: the table is searched from its beginning.
using JsonDtypes =
    std::tuple<JsonDtype<kJsonFloat, float, 5>, JsonDtype<kJsonInt64, int64_t, 10>, JsonDtype<kJsonInt32, int32_t, 7>,
               JsonDtype<kJsonString, std::string_view, 8>, JsonDtype<kJsonDouble, double, 6>,
               JsonDtype<kJsonBool, bool, 11>, JsonDtype<kJsonUint8, uint8_t, 7>, JsonDtype<kJsonInt8, int8_t, 7>,
               JsonDtype<kJsonInt16, int16_t, 7>, JsonDtype<kJsonUint32, uint32_t, 16>,
               JsonDtype<kJsonUint64, uint64_t, 17>>;

// Calls `visit` with the entry of `dtype`; returns whether there is one.
template <typename Visit>
bool VisitJsonDtype(int dtype, Visit&& visit) {
  return std::apply([&](auto... entry) { return ((dtype == entry.kNumber && (visit(entry), true)) || ...); },
                    JsonDtypes{});
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_JSON_DTYPE_H_
