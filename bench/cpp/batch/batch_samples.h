// What a load sends and what it expects back, as bench/batching_samples.py wrote it.
#ifndef TESSERA_BENCH_CPP_BATCH_BATCH_SAMPLES_H_
#define TESSERA_BENCH_CPP_BATCH_BATCH_SAMPLES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera::bench {

struct Sample {
  std::vector<tensorflow::Tensor> inputs;    // in the order of Samples::inputs
  std::vector<tensorflow::Tensor> expected;  // in the order of Samples::outputs; empty: an error is expected
};

struct Samples {
  std::vector<std::string> inputs, outputs;  // aliases
  std::vector<Sample> good, poisoned;
};

// The file: little-endian 32-bit numbers, and byte strings with their length in front. Numbers of inputs, outputs and
// samples; the aliases; then for each sample whether it is poisoned (a number), its inputs and, unless it is, its
// outputs, as serialized TensorProtos.
absl::StatusOr<Samples> ReadSamples(const std::string& path);

// Whether the tensors agree: floats within 1e-4 (absolute, and relative to the expected value), all else exactly.
bool Agrees(const tensorflow::Tensor& got, const tensorflow::Tensor& expected);

}  // namespace tessera::bench

#endif  // TESSERA_BENCH_CPP_BATCH_BATCH_SAMPLES_H_
