// Runs models that are no graph of TensorFlow's: another runtime's, or Python code.
#ifndef TESSERA_CPP_EXT_GRAPH_FOREIGN_RUNNER_H_
#define TESSERA_CPP_EXT_GRAPH_FOREIGN_RUNNER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/graph/step_runner.h"
#include "cpp_ext/graph/worker_pool.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/protobuf/meta_graph.pb.h"

namespace tessera {

// The model itself. Thread-safe: called by several workers at once.
class ForeignModel {
 public:
  virtual ~ForeignModel() = default;
  // Runs one signature; may block. `args` are in the order of signature.inputs(), and of the declared types and shapes;
  // `results` are to be those of signature.fetches(), in order.
  virtual absl::Status Run(const Signature& signature, const std::vector<tensorflow::Tensor>& args,
                           std::vector<tensorflow::Tensor>* results) const = 0;
};

// One signature of a foreign model. What the model gets and gives is checked against the declaration.
class ForeignRunner : public StepRunner {
 public:
  // All outlive the runner. `name` is for messages.
  ForeignRunner(std::string name, const ForeignModel* model, WorkerPool* pool, Signature signature,
                const tensorflow::SignatureDef& def);

  // Runs `step` on the pool and calls step->Finish there. At once, on this thread: RESOURCE_EXHAUSTED when the pool is
  // full, INVALID_ARGUMENT for inputs that are not as declared. A step that was cancelled or whose deadline has passed
  // does not begin; one that has begun cannot be cancelled.
  void RunAsync(Step* step) const override;
  bool needs_context() const override { return true; }  // it has the deadline
  bool ends_elsewhere() const override { return true; }

 private:
  // A declared tensor; no dimensions to compare when the rank is unknown.
  struct Declared {
    std::string alias;
    tensorflow::DataType dtype;
    tensorflow::PartialTensorShape shape;
  };
  static std::string Difference(const Declared& declared, const tensorflow::Tensor& given);
  absl::Status Run(Step* step) const;

  const std::string name_;
  const ForeignModel* const model_;
  WorkerPool* const pool_;
  const Signature signature_;
  std::vector<Declared> inputs_;   // in the order of the signature's inputs
  std::vector<Declared> outputs_;  // in the order of its fetches
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_FOREIGN_RUNNER_H_
