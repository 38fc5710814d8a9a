// How fast a SavedModel runs with nothing around it: one thread, inputs made
// once, no decoding and no network.
//
//   execution_floor SAVED_MODEL SIGNATURE CALLS ALIAS=DTYPE:DIM,DIM,...[:HIGH]
//   ...
//
// Inputs are random: floats in [0, 1), integers in [0, HIGH) (HIGH is 1 unless
// given). Prints one line of JSON: calls, us_per_call and cpu_us_per_call
// (medians of 5 rounds).
#include <stdlib.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "cpp_ext/graph/graph.h"
#include "cpp_ext/graph/step.h"

namespace {

namespace tf = tensorflow;

double Now(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

[[noreturn]] void Fail(const std::string& text) {
  fprintf(stderr, "execution_floor: %s\n", text.c_str());
  exit(2);
}

tf::Tensor RandomTensor(const std::string& spec) {
  const std::vector<std::string> parts = absl::StrSplit(spec, ':');
  tf::DataType dtype;
  if (parts.size() < 2 || !tf::DataTypeFromString(parts[0], &dtype))
    Fail("input " + spec + ": expected DTYPE:DIMS[:HIGH]");
  tf::TensorShape shape;
  for (const auto& text : absl::StrSplit(parts[1], ',', absl::SkipEmpty())) {
    int64_t dim = 0;
    if (!absl::SimpleAtoi(text, &dim) || dim < 0) Fail("input " + spec + ": bad dimension");
    shape.AddDim(dim);
  }
  int64_t high = 1;
  if (parts.size() > 2 && (!absl::SimpleAtoi(parts[2], &high) || high < 1)) Fail("input " + spec + ": bad HIGH");
  tf::Tensor tensor(dtype, shape);
  std::mt19937_64 random(7);
  for (int64_t i = 0; i < tensor.NumElements(); ++i) {
    const auto integer = static_cast<int64_t>(random() % static_cast<uint64_t>(high));
    if (dtype == tf::DT_FLOAT) {
      tensor.flat<float>()(i) = static_cast<float>(random() % 1000) / 1000;
    } else if (dtype == tf::DT_INT64) {
      tensor.flat<int64_t>()(i) = integer;
    } else if (dtype == tf::DT_INT32) {
      tensor.flat<int32_t>()(i) = static_cast<int32_t>(integer);
    } else {
      Fail("input " + spec + ": expected float, int32 or int64");
    }
  }
  return tensor;
}

}  // namespace

int main(int argc, char** argv) {
  int64_t calls = 0;
  if (argc < 4 || !absl::SimpleAtoi(argv[3], &calls) || calls < 1) {
    Fail("expected SAVED_MODEL SIGNATURE CALLS ALIAS=DTYPE:DIMS[:HIGH] ...");
  }
  tessera::LoadOptions options;
  options.tags = {"serve"};
  options.intra_op_threads = 1;
  auto graph = tessera::LoadedGraph::Load(argv[1], options);
  if (!graph.ok()) Fail(std::string(graph.status().message()));
  const tessera::Runnable* runnable = (*graph)->Find(argv[2]);
  if (runnable == nullptr || runnable->mode() != tessera::RunMode::kInline) Fail("the signature does not run inline");
  const tessera::Signature& signature = runnable->signature();
  std::vector<tf::Tensor> inputs(signature.inputs().size());
  for (int i = 4; i < argc; ++i) {
    const std::pair<std::string, std::string> item = absl::StrSplit(argv[i], absl::MaxSplits('=', 1));
    const int position = signature.FindInput(item.first);
    if (position < 0) Fail("no input " + item.first);
    inputs[static_cast<size_t>(position)] = RandomTensor(item.second);
  }
  tessera::Step step;
  absl::Status status;
  step.set_done([](void* arg, absl::Status ended) { *static_cast<absl::Status*>(arg) = std::move(ended); }, &status);
  const auto run = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      step.Reset(inputs.size(), signature.fetches().size());
      step.args() = inputs;
      runnable->RunAsync(&step);
      if (!status.ok()) Fail(std::string(status.message()));
      step.Clear();
    }
  };
  run(std::max<int64_t>(calls / 10, 1));  // warm
  std::vector<double> wall, cpu;
  for (int round = 0; round < 5; ++round) {
    const double wall_start = Now(CLOCK_MONOTONIC), cpu_start = Now(CLOCK_PROCESS_CPUTIME_ID);
    run(calls);
    wall.push_back((Now(CLOCK_MONOTONIC) - wall_start) / static_cast<double>(calls));
    cpu.push_back((Now(CLOCK_PROCESS_CPUTIME_ID) - cpu_start) / static_cast<double>(calls));
  }
  std::sort(wall.begin(), wall.end());
  std::sort(cpu.begin(), cpu.end());
  printf("{\"calls\": %lld, \"us_per_call\": %.3f, \"cpu_us_per_call\": %.3f}\n", static_cast<long long>(calls),
         wall[2], cpu[2]);
  return 0;
}
