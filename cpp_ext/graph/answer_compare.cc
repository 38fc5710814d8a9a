#include "cpp_ext/graph/answer_compare.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cpp_ext/graph/tensor_decode.h"
#include "protozero/pbf_reader.hpp"

namespace tessera {
namespace {

namespace tf = tensorflow;
using protozero::pbf_reader;
using protozero::pbf_wire_type;

absl::string_view View(protozero::data_view view) { return {view.data(), view.size()}; }

double Magnitude(double value) { return std::abs(value); }
double Magnitude(std::complex<double> value) { return std::abs(value); }
bool IsNan(double value) { return std::isnan(value); }
bool IsNan(std::complex<double> value) { return std::isnan(value.real()) || std::isnan(value.imag()); }

// Returns whether x and y are equal within `tolerance`, and keeps the largest difference.
template <typename Wide>
bool IsClose(Wide x, Wide y, double tolerance, double* max_abs_difference) {
  if (x == y || (IsNan(x) && IsNan(y))) return true;  // infinities too
  const double difference = Magnitude(x - y);
  if (std::isnan(difference) || std::isinf(difference)) {
    *max_abs_difference = HUGE_VAL;
    return false;
  }
  *max_abs_difference = std::max(*max_abs_difference, difference);
  return difference <= tolerance * std::max({1.0, Magnitude(x), Magnitude(y)});
}

template <typename T, typename Wide>
bool AreClose(const tf::Tensor& left, const tf::Tensor& right, double tolerance, double* max_abs_difference) {
  const auto x = left.flat<T>();
  const auto y = right.flat<T>();
  bool all = true;
  for (int64_t i = 0; i < x.size(); ++i) {
    all &= IsClose(static_cast<Wide>(x(i)), static_cast<Wide>(y(i)), tolerance, max_abs_difference);
  }
  return all;
}

bool SameValues(const tf::Tensor& left, const tf::Tensor& right, double tolerance, double* max_abs_difference) {
  switch (left.dtype()) {
    case tf::DT_FLOAT:
      return AreClose<float, double>(left, right, tolerance, max_abs_difference);
    case tf::DT_DOUBLE:
      return AreClose<double, double>(left, right, tolerance, max_abs_difference);
    case tf::DT_HALF:
      return AreClose<Eigen::half, double>(left, right, tolerance, max_abs_difference);
    case tf::DT_BFLOAT16:
      return AreClose<tf::bfloat16, double>(left, right, tolerance, max_abs_difference);
    case tf::DT_COMPLEX64:
      return AreClose<std::complex<float>, std::complex<double>>(left, right, tolerance, max_abs_difference);
    case tf::DT_COMPLEX128:
      return AreClose<std::complex<double>, std::complex<double>>(left, right, tolerance, max_abs_difference);
    case tf::DT_STRING: {
      const auto x = left.flat<tf::tstring>();
      const auto y = right.flat<tf::tstring>();
      return std::equal(x.data(), x.data() + x.size(), y.data());
    }
    default:
      return left.tensor_data() == right.tensor_data();
  }
}

using Outputs = std::map<std::string, absl::string_view>;  // alias → TensorProto

Outputs ReadOutputs(absl::string_view message) {
  Outputs outputs;
  pbf_reader response(message.data(), message.size());
  while (response.next(1, pbf_wire_type::length_delimited)) {
    pbf_reader entry = response.get_message();
    std::string alias;
    absl::string_view tensor;
    while (entry.next()) {
      if (entry.tag() == 1) {
        alias = entry.get_string();
      } else if (entry.tag() == 2) {
        tensor = View(entry.get_view());
      } else {
        entry.skip();
      }
    }
    outputs[alias] = tensor;
  }
  return outputs;
}

absl::StatusOr<AnswerDifference> CompareTensors(const std::string& alias, absl::string_view left,
                                                absl::string_view right, double tolerance) {
  AnswerDifference difference;
  if (left == right) return difference;
  tf::Tensor x, y;
  absl::Status status = DecodeTensor(left, &x);
  status.Update(DecodeTensor(right, &y));
  if (!status.ok()) return status;
  if (x.dtype() != y.dtype()) {
    difference.what =
        absl::StrCat("output ", alias, ": ", tf::DataTypeString(x.dtype()), " and ", tf::DataTypeString(y.dtype()));
  } else if (x.shape() != y.shape()) {
    difference.what =
        absl::StrCat("output ", alias, ": shapes ", x.shape().DebugString(), " and ", y.shape().DebugString());
  } else if (!SameValues(x, y, tolerance, &difference.max_abs_difference)) {
    difference.what = absl::StrCat("output ", alias, ": values");
  }
  return difference;
}

absl::StatusOr<AnswerDifference> ComparePredict(absl::string_view left, absl::string_view right, double tolerance) {
  const Outputs x = ReadOutputs(left), y = ReadOutputs(right);
  for (const auto& [alias, tensor] : x) {
    const auto other = y.find(alias);
    if (other == y.end()) return AnswerDifference{absl::StrCat("output ", alias, ": only one has it"), 0};
    absl::StatusOr<AnswerDifference> difference = CompareTensors(alias, tensor, other->second, tolerance);
    if (!difference.ok() || !difference->equal()) return difference;
  }
  for (const auto& [alias, tensor] : y) {
    if (x.count(alias) == 0) return AnswerDifference{absl::StrCat("output ", alias, ": only one has it"), 0};
  }
  return AnswerDifference{};
}

// Everything that a classification or regression says, in order: where results, examples and classes begin, labels, and
// numbers.
struct Inference {
  std::string structure;
  std::vector<float> values;
};

// A Class {label = 1, score = 2} or a Regression {value = 1}: whichever fields are there.
void ReadLeaf(pbf_reader leaf, Inference* inference) {
  std::string label;
  float value = 0;
  while (leaf.next()) {
    if (leaf.wire_type() == pbf_wire_type::length_delimited) {
      label = leaf.get_string();
    } else if (leaf.wire_type() == pbf_wire_type::fixed32) {
      value = leaf.get_float();
    } else {
      leaf.skip();
    }
  }
  absl::StrAppend(&inference->structure, "<", label.size(), ":", label, ">");
  inference->values.push_back(value);
}

// Lists of lists of leaves: a ClassificationResult has depth 2, a RegressionResult 1.
void ReadLists(pbf_reader lists, int depth, Inference* inference) {
  while (lists.next(1, pbf_wire_type::length_delimited)) {
    if (depth == 1) {
      ReadLeaf(lists.get_message(), inference);
      continue;
    }
    absl::StrAppend(&inference->structure, "[");
    ReadLists(lists.get_message(), depth - 1, inference);
    absl::StrAppend(&inference->structure, "]");
  }
}

Inference ReadInference(Method method, absl::string_view message) {
  Inference inference;
  pbf_reader response(message.data(), message.size());
  if (method != Method::kMultiInference) {
    while (response.next(1, pbf_wire_type::length_delimited)) {
      ReadLists(response.get_message(), method == Method::kClassify ? 2 : 1, &inference);
    }
    return inference;
  }
  while (response.next(1, pbf_wire_type::length_delimited)) {
    pbf_reader result = response.get_message();
    while (result.next()) {
      if (result.tag() == 2 || result.tag() == 3) {
        absl::StrAppend(&inference.structure, result.tag() == 2 ? "classify" : "regress");
        ReadLists(result.get_message(), result.tag() == 2 ? 2 : 1, &inference);
      } else {
        result.skip();
      }
    }
  }
  return inference;
}

AnswerDifference CompareInference(const Inference& left, const Inference& right, double tolerance) {
  AnswerDifference difference;
  if (left.structure != right.structure || left.values.size() != right.values.size()) {
    difference.what = "examples, classes or labels";
    return difference;
  }
  bool all = true;
  for (size_t i = 0; i < left.values.size(); ++i) {
    all &= IsClose(double{left.values[i]}, double{right.values[i]}, tolerance, &difference.max_abs_difference);
  }
  if (!all) difference.what = "scores or values";
  return difference;
}

}  // namespace

absl::StatusOr<AnswerDifference> CompareAnswers(Method method, absl::string_view left, absl::string_view right,
                                                double tolerance) {
  try {
    if (method == Method::kPredict) return ComparePredict(left, right, tolerance);
    return CompareInference(ReadInference(method, left), ReadInference(method, right), tolerance);
  } catch (const protozero::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("a response cannot be parsed: ", error.what()));
  }
}

}  // namespace tessera
