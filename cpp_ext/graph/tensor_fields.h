// How each dtype is written in the typed fields of tensorflow.TensorProto.
#ifndef TESSERA_CPP_EXT_GRAPH_TENSOR_FIELDS_H_
#define TESSERA_CPP_EXT_GRAPH_TENSOR_FIELDS_H_

#include <cstdint>

#include "tensorflow/core/framework/types.h"

namespace tessera {

enum class FieldKind {
  kNone,     // not a dtype that can be sent
  kCopy,     // packed fixed-width values with the layout of the tensor: float,
             // double, complex
  kVarint,   // packed varints
  kBytes,    // one `bytes` value with a byte an element: float8
  kStrings,  // a repeated `bytes`, one an element
};

struct TensorField {
  FieldKind kind = FieldKind::kNone;
  uint32_t number = 0;
};

constexpr uint32_t kTensorDtype = 1;
constexpr uint32_t kTensorShape = 2;
constexpr uint32_t kTensorContent = 4;
constexpr uint32_t kShapeDim = 2;
constexpr uint32_t kShapeUnknownRank = 3;
constexpr uint32_t kDimSize = 1;

inline TensorField FieldOf(tensorflow::DataType dtype) {
  namespace tf = tensorflow;
  switch (dtype) {
    case tf::DT_FLOAT:
      return {FieldKind::kCopy, 5};
    case tf::DT_DOUBLE:
      return {FieldKind::kCopy, 6};
    case tf::DT_COMPLEX64:
      return {FieldKind::kCopy, 9};
    case tf::DT_COMPLEX128:
      return {FieldKind::kCopy, 12};
    case tf::DT_INT4:
    case tf::DT_UINT4:
    case tf::DT_INT8:
    case tf::DT_UINT8:
    case tf::DT_INT16:
    case tf::DT_UINT16:
    case tf::DT_INT32:
    case tf::DT_QINT8:
    case tf::DT_QUINT8:
    case tf::DT_QINT16:
    case tf::DT_QUINT16:
    case tf::DT_QINT32:
      return {FieldKind::kVarint, 7};
    case tf::DT_INT64:
      return {FieldKind::kVarint, 10};
    case tf::DT_BOOL:
      return {FieldKind::kVarint, 11};
    case tf::DT_HALF:
    case tf::DT_BFLOAT16:
      return {FieldKind::kVarint, 13};
    case tf::DT_UINT32:
      return {FieldKind::kVarint, 16};
    case tf::DT_UINT64:
      return {FieldKind::kVarint, 17};
    case tf::DT_FLOAT8_E5M2:
    case tf::DT_FLOAT8_E4M3FN:
    case tf::DT_FLOAT8_E4M3FNUZ:
    case tf::DT_FLOAT8_E4M3B11FNUZ:
    case tf::DT_FLOAT8_E5M2FNUZ:
      return {FieldKind::kBytes, 18};
    case tf::DT_STRING:
      return {FieldKind::kStrings, 8};
    default:
      return {};
  }
}

// Bytes of one element in a tensor's memory; strings count their handle.
inline size_t ElementBytes(tensorflow::DataType dtype) {
  return dtype == tensorflow::DT_STRING ? sizeof(tensorflow::tstring)
                                        : static_cast<size_t>(tensorflow::DataTypeSize(dtype));
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_TENSOR_FIELDS_H_
