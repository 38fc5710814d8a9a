#include <gtest/gtest.h>
#include <stdlib.h>

#include <random>
#include <string>

#include "cpp_ext/graph/request_view.h"
#include "cpp_ext/graph/tensor_decode.h"
#include "cpp_ext/graph/tensor_encode.h"
#include "cpp_ext/graph/wire.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace tessera {
namespace {

namespace tf = tensorflow;

std::string Encode(const tf::Tensor& tensor, bool content) {
  TensorEncoder encoder;
  EXPECT_TRUE(encoder.Init(tensor, content).ok());
  std::string out(encoder.size_bytes(), '\0');
  EXPECT_EQ(encoder.Write(reinterpret_cast<uint8_t*>(out.data())), reinterpret_cast<uint8_t*>(out.data()) + out.size());
  return out;
}

template <typename T>
tf::Tensor Numbers(tf::DataType dtype) {
  tf::Tensor tensor(dtype, tf::TensorShape({3, 2}));
  for (int i = 0; i < 6; ++i) tensor.flat<T>()(i) = static_cast<T>(i * 37 - 40);
  return tensor;
}

// Byte for byte what TensorFlow itself writes, in both forms.
void ExpectTensorFlowsBytes(const tf::Tensor& tensor) {
  tf::TensorProto typed, content;
  tensor.AsProtoField(&typed);
  tensor.AsProtoTensorContent(&content);
  EXPECT_EQ(Encode(tensor, false), typed.SerializeAsString()) << tf::DataTypeString(tensor.dtype());
  EXPECT_EQ(Encode(tensor, true), content.SerializeAsString()) << tf::DataTypeString(tensor.dtype());
}

TEST(TensorEncoderTest, WritesTheBytesOfTensorFlow) {
  ExpectTensorFlowsBytes(Numbers<float>(tf::DT_FLOAT));
  ExpectTensorFlowsBytes(Numbers<double>(tf::DT_DOUBLE));
  ExpectTensorFlowsBytes(Numbers<Eigen::half>(tf::DT_HALF));
  ExpectTensorFlowsBytes(Numbers<tf::bfloat16>(tf::DT_BFLOAT16));
  ExpectTensorFlowsBytes(Numbers<int8_t>(tf::DT_INT8));
  ExpectTensorFlowsBytes(Numbers<int16_t>(tf::DT_INT16));
  ExpectTensorFlowsBytes(Numbers<int32_t>(tf::DT_INT32));
  ExpectTensorFlowsBytes(Numbers<int64_t>(tf::DT_INT64));
  ExpectTensorFlowsBytes(Numbers<uint8_t>(tf::DT_UINT8));
  ExpectTensorFlowsBytes(Numbers<uint16_t>(tf::DT_UINT16));
  ExpectTensorFlowsBytes(Numbers<uint32_t>(tf::DT_UINT32));
  ExpectTensorFlowsBytes(Numbers<uint64_t>(tf::DT_UINT64));
  ExpectTensorFlowsBytes(Numbers<bool>(tf::DT_BOOL));
  ExpectTensorFlowsBytes(Numbers<tf::complex64>(tf::DT_COMPLEX64));
  ExpectTensorFlowsBytes(Numbers<tf::complex128>(tf::DT_COMPLEX128));
  tf::Tensor strings(tf::DT_STRING, tf::TensorShape({2}));
  strings.flat<tf::tstring>()(0) = "a";
  strings.flat<tf::tstring>()(1) = std::string(300, 'b');
  ExpectTensorFlowsBytes(strings);
  ExpectTensorFlowsBytes(tf::Tensor(tf::DT_FLOAT, tf::TensorShape({0, 4})));
  ExpectTensorFlowsBytes(tf::Tensor(tf::DT_FLOAT, tf::TensorShape({})));
}

TEST(WireTest, VarintSizesMatchWhatIsWritten) {
  for (int bits = 0; bits < 64; ++bits) {
    for (uint64_t value : {uint64_t{1} << bits, (uint64_t{1} << bits) - 1, ~uint64_t{0} >> bits}) {
      uint8_t buffer[10];
      EXPECT_EQ(VarintSize(value), static_cast<size_t>(WriteVarint(value, buffer) - buffer)) << value;
    }
  }
}

// Damaged messages are read or refused; a sanitizer build shows that nothing
// else happens.
TEST(PredictRequestTest, DamagedMessagesAreReadOrRefused) {
  tf::TensorProto proto;
  Numbers<int32_t>(tf::DT_INT32).AsProtoField(&proto);
  const std::string tensor = proto.SerializeAsString();
  std::string entry(DelimitedSize(1, 1) + DelimitedSize(2, tensor.size()), '\0');
  WriteDelimited(2, tensor, WriteDelimited(1, "x", reinterpret_cast<uint8_t*>(entry.data())));
  std::string message(DelimitedSize(2, entry.size()), '\0');
  WriteDelimited(2, entry, reinterpret_cast<uint8_t*>(message.data()));
  message = std::string("\x0a\x07\x0a\x01m\x12\x02\x08\x07", 9) + message;
  std::mt19937 random(11);
  for (int round = 0; round < 50000; ++round) {
    std::string damaged = message;
    for (int i = 0; i < 3; ++i) damaged[random() % damaged.size()] = static_cast<char>(random());
    damaged.resize(random() % 4 == 0 ? random() % (damaged.size() + 1) : damaged.size());
    RequestView view;
    if (!ParseRequest(Method::kPredict, damaged, &view).ok()) continue;
    for (const auto& input : view.inputs) {
      tf::Tensor decoded;
      DecodeTensor(input.tensor, &decoded).IgnoreError();
    }
  }
}

TEST(PredictRequestTest, TheLastOfRepeatedInputsWins) {
  const auto entry = [](char alias, char value) { return std::string{0x12, 6, 0x0a, 1, alias, 0x12, 1, value}; };
  std::string message;
  for (int i = 0; i < 40; ++i) message += entry(static_cast<char>('a' + i % 20), static_cast<char>(i));
  RequestView view;
  ASSERT_TRUE(ParseRequest(Method::kPredict, message, &view).ok());
  ASSERT_EQ(view.inputs.size(), 20u);
  for (const auto& input : view.inputs) EXPECT_EQ(input.tensor[0], input.alias[0] - 'a' + 20);
}

}  // namespace
}  // namespace tessera
