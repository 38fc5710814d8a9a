// Which answers are the same, and what is said of those that are not.
#include "cpp_ext/graph/answer_compare.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "protozero/pbf_writer.hpp"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace tessera {
namespace {

namespace tf = tensorflow;
using protozero::pbf_writer;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <typename T>
tf::Tensor Vector(const std::vector<T>& values) {
  tf::Tensor tensor(tf::DataTypeToEnum<T>::value, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.flat<T>().data());
  return tensor;
}

std::string Predicted(const std::vector<std::pair<std::string, tf::Tensor>>& outputs) {
  std::string message;
  pbf_writer response(message);
  for (const auto& [alias, tensor] : outputs) {
    tf::TensorProto proto;
    tensor.AsProtoField(&proto);
    pbf_writer entry(response, 1);
    entry.add_string(1, alias);
    entry.add_message(2, proto.SerializeAsString());
  }
  return message;
}

using Classes = std::vector<std::pair<std::string, float>>;

std::string Classified(const std::vector<Classes>& examples) {
  std::string message;
  pbf_writer response(message);
  pbf_writer result(response, 1);
  for (const Classes& classes : examples) {
    std::string classification;  // a nested writer would leave out what is empty
    pbf_writer writer(classification);
    for (const auto& [label, score] : classes) {
      pbf_writer one(writer, 1);
      one.add_string(1, label);
      one.add_float(2, score);
    }
    result.add_message(1, classification);
  }
  return message;
}

std::string Regressed(const std::vector<float>& values) {
  std::string message;
  pbf_writer response(message);
  pbf_writer result(response, 1);
  for (const float value : values) pbf_writer(result, 1).add_float(1, value);
  return message;
}

AnswerDifference Compare(Method method, const std::string& left, const std::string& right, double tolerance = 0) {
  const auto difference = CompareAnswers(method, left, right, tolerance);
  EXPECT_TRUE(difference.ok()) << difference.status();
  const auto other_way = CompareAnswers(method, right, left, tolerance);
  EXPECT_TRUE(other_way.ok()) << other_way.status();
  EXPECT_EQ(difference->equal(), other_way->equal());
  return *difference;
}

bool SameDoubles(double left, double right, double tolerance) {
  return Compare(Method::kPredict, Predicted({{"y", Vector<double>({1, left})}}),
                 Predicted({{"y", Vector<double>({1, right})}}), tolerance)
      .equal();
}

TEST(AnswerCompare, NumbersMayDifferByTheTolerance) {
  EXPECT_TRUE(SameDoubles(1000, 1000.9, 1e-3));  // relative above 1
  EXPECT_FALSE(SameDoubles(1000, 1001.1, 1e-3));
  EXPECT_TRUE(SameDoubles(1e-9, 5e-4, 1e-3));  // absolute below
  EXPECT_FALSE(SameDoubles(1e-9, 2e-3, 1e-3));
  EXPECT_TRUE(SameDoubles(2, 2, 0));
  EXPECT_FALSE(SameDoubles(2, std::nextafter(2, 3), 0));
}

TEST(AnswerCompare, NanAndInfinityAreEqualToThemselvesOnly) {
  EXPECT_TRUE(SameDoubles(kNan, kNan, 0));
  EXPECT_FALSE(SameDoubles(kNan, 1, 1e9));
  EXPECT_TRUE(SameDoubles(kInfinity, kInfinity, 0));
  EXPECT_FALSE(SameDoubles(kInfinity, -kInfinity, 1e9));
  EXPECT_FALSE(SameDoubles(kInfinity, 1, 1e9));
}

TEST(AnswerCompare, EveryKindOfValueIsCompared) {
  const auto same = [](const tf::Tensor& left, const tf::Tensor& right, double tolerance) {
    return Compare(Method::kPredict, Predicted({{"y", left}}), Predicted({{"y", right}}), tolerance).equal();
  };
  EXPECT_TRUE(same(Vector<float>({1}), Vector<float>({1.0001f}), 1e-3));
  EXPECT_TRUE(same(Vector<Eigen::half>({Eigen::half(1)}), Vector<Eigen::half>({Eigen::half(1.001f)}), 1e-2));
  EXPECT_TRUE(same(Vector<tf::bfloat16>({tf::bfloat16(1)}), Vector<tf::bfloat16>({tf::bfloat16(1.01f)}), 1e-1));
  EXPECT_FALSE(same(Vector<tf::bfloat16>({tf::bfloat16(1)}), Vector<tf::bfloat16>({tf::bfloat16(2)}), 1e-1));
  EXPECT_TRUE(same(Vector<tf::complex64>({{1, 2}}), Vector<tf::complex64>({{1, 2.001f}}), 1e-2));
  EXPECT_FALSE(same(Vector<tf::complex128>({{1, 2}}), Vector<tf::complex128>({{1, 3}}), 1e-2));
  EXPECT_FALSE(same(Vector<int64_t>({1}), Vector<int64_t>({2}), 10));  // integers are exact
  EXPECT_FALSE(same(Vector<bool>({true}), Vector<bool>({false}), 10));
  EXPECT_TRUE(same(Vector<tf::tstring>({"a", "bc"}), Vector<tf::tstring>({"a", "bc"}), 0));
  EXPECT_FALSE(same(Vector<tf::tstring>({"a", "bc"}), Vector<tf::tstring>({"a", "bd"}), 0));
}

TEST(AnswerCompare, TheOutputThatDiffersIsNamed) {
  const tf::Tensor one = Vector<float>({1, 2}), other = Vector<float>({1, 2.5f});
  const AnswerDifference values =
      Compare(Method::kPredict, Predicted({{"a", one}, {"b", one}}), Predicted({{"b", other}, {"a", one}}), 1e-3);
  EXPECT_EQ(values.what, "output b: values");
  EXPECT_DOUBLE_EQ(values.max_abs_difference, 0.5);
  EXPECT_EQ(Compare(Method::kPredict, Predicted({{"a", one}}), Predicted({{"a", Vector<double>({1, 2})}})).what,
            "output a: float and double");
  EXPECT_EQ(Compare(Method::kPredict, Predicted({{"a", one}}), Predicted({{"a", Vector<float>({1})}})).what,
            "output a: shapes [2] and [1]");
  EXPECT_EQ(Compare(Method::kPredict, Predicted({{"a", one}, {"b", one}}), Predicted({{"a", one}})).what,
            "output b: only one has it");
  EXPECT_TRUE(Compare(Method::kPredict, "", "").equal());
}

TEST(AnswerCompare, ClassesLabelsAndScores) {
  const std::string answer = Classified({{{"no", 0.25f}, {"yes", 0.75f}}, {}});
  const auto compare = [&](const std::string& other, double tolerance = 1e-3) {
    return Compare(Method::kClassify, answer, other, tolerance);
  };
  EXPECT_TRUE(compare(Classified({{{"no", 0.2501f}, {"yes", 0.75f}}, {}})).equal());
  EXPECT_EQ(compare(Classified({{{"no", 0.5f}, {"yes", 0.75f}}, {}})).what, "scores or values");
  EXPECT_DOUBLE_EQ(compare(Classified({{{"no", 0.5f}, {"yes", 0.75f}}, {}})).max_abs_difference, 0.25);
  EXPECT_EQ(compare(Classified({{{"yes", 0.25f}, {"no", 0.75f}}, {}})).what, "examples, classes or labels");
  EXPECT_EQ(compare(Classified({{}, {{"no", 0.25f}, {"yes", 0.75f}}})).what, "examples, classes or labels");
  EXPECT_EQ(compare(Classified({{{"no", 0.25f}, {"yes", 0.75f}}})).what, "examples, classes or labels");
}

TEST(AnswerCompare, Regressions) {
  EXPECT_TRUE(Compare(Method::kRegress, Regressed({1, 2}), Regressed({1, 2}), 0).equal());
  EXPECT_FALSE(Compare(Method::kRegress, Regressed({1, 2}), Regressed({2, 1}), 0).equal());
  EXPECT_FALSE(Compare(Method::kRegress, Regressed({1, 2}), Regressed({1}), 0).equal());
}

TEST(AnswerCompare, WhatCannotBeReadIsAnError) {
  const std::string good = Predicted({{"y", Vector<float>({1})}});
  for (const Method method : {Method::kPredict, Method::kClassify, Method::kRegress, Method::kMultiInference}) {
    EXPECT_EQ(CompareAnswers(method, good, "\x0a\x7f", 0).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace tessera
