// The two runtimes that are compared, behind one face: Tessera's own executor, and TensorFlow's session as TensorFlow
// Serving uses it.
#ifndef TESSERA_BENCH_CPP_BATCH_BATCH_ENGINE_H_
#define TESSERA_BENCH_CPP_BATCH_BATCH_ENGINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "bench/cpp/batch/batch_samples.h"
#include "cpp_ext/batch/policy.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera::bench {

int64_t NowNs();  // CLOCK_MONOTONIC

// One request at a time, again and again.
class Call {
 public:
  using Done = void (*)(void* arg);

  virtual ~Call() = default;
  // Runs the model; `done` may run before this returns, or on another thread. `deadline_ns`: NowNs() when the answer is
  // useless, 0 for never. `cancel_ns`: when the caller loses interest, 0 for never; an engine that cannot be told later
  // is told now.
  virtual void Start(const Sample& sample, int64_t deadline_ns, int64_t cancel_ns, Done done, void* arg) = 0;
  // The caller has lost interest. Any thread, between Start and `done`'s being heard of.
  virtual void Cancel() = 0;
  // After `done`.
  virtual const absl::Status& status() const = 0;
  virtual const tensorflow::Tensor& output(size_t index) const = 0;
};

struct BatchTotals {
  uint64_t tasks = 0, rows = 0, batches = 0, padding_rows = 0, inline_batches = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual std::unique_ptr<Call> NewCall() = 0;
  // Whether Start returns only after `done`.
  virtual bool blocks() const = 0;
  virtual absl::Status SetPolicy(const BatchPolicy& policy) = 0;
  virtual BatchTotals totals() const = 0;
  // Region → why it is not batched; empty if it is.
  virtual std::map<std::string, std::string> regions() const = 0;

  Samples samples;  // constant once loaded
};

struct EngineOptions {
  int intra_op_threads = 0;
  int inter_op_threads = 0;  // of sessions; -1: the caller's thread runs everything
};

absl::StatusOr<std::unique_ptr<Model>> LoadTesseraModel(const std::string& path, const std::string& name,
                                                        Samples samples, const EngineOptions& options);
absl::StatusOr<std::unique_ptr<Model>> LoadSessionModel(const std::string& path, Samples samples,
                                                        const EngineOptions& options);

}  // namespace tessera::bench

#endif  // TESSERA_BENCH_CPP_BATCH_BATCH_ENGINE_H_
