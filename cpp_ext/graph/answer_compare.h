// Whether two answers of one method say the same.
#ifndef TESSERA_CPP_EXT_GRAPH_ANSWER_COMPARE_H_
#define TESSERA_CPP_EXT_GRAPH_ANSWER_COMPARE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cpp_ext/graph/answer_hook.h"

namespace tessera {

// The first thing in which two answers differ; `what` is empty if there is none.
struct AnswerDifference {
  std::string what;               // for people: "output y: shape [2] and [3]"
  double max_abs_difference = 0;  // of the numbers of that output, where they are what differs

  bool equal() const { return what.empty(); }
};

// Compares two serialized responses of `method`: names, dtypes, shapes and values of outputs; labels, scores and
// regressions. Model specs are not compared. Numbers x and y with |x - y| ≤ tolerance · max(1, |x|, |y|) are equal, and
// NaN is equal to NaN; integers, booleans and strings have to be the same. INVALID_ARGUMENT: one cannot be read.
// Cost: decodes both.
absl::StatusOr<AnswerDifference> CompareAnswers(Method method, absl::string_view left, absl::string_view right,
                                                double tolerance);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_ANSWER_COMPARE_H_
