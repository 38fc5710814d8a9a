// What can run steps: a compiled graph, TensorFlow's session, a model of another platform.
#ifndef TESSERA_CPP_EXT_GRAPH_STEP_RUNNER_H_
#define TESSERA_CPP_EXT_GRAPH_STEP_RUNNER_H_

#include "cpp_ext/graph/step.h"

namespace tessera {

// Immutable and thread-safe: many steps run at once.
class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // Runs `step`, whose args() are the inputs, and then calls step->Finish, possibly before this returns; its results()
  // are then the outputs. The runner must be kept alive until Finish has been called and, when it is called on this
  // thread, until RunAsync has returned.
  virtual void RunAsync(Step* step) const = 0;
  // Whether a step needs a valid slot with its context.
  virtual bool needs_context() const = 0;
  // Whether a step may end on another thread than the one that runs it, while that one is free for something else.
  virtual bool ends_elsewhere() const = 0;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_STEP_RUNNER_H_
