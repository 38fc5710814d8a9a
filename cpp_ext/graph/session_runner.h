// Runs a signature through TensorFlow's session, for graphs that GraphExecutor
// cannot run. Blocks a thread a request.
#ifndef TESSERA_CPP_EXT_GRAPH_SESSION_RUNNER_H_
#define TESSERA_CPP_EXT_GRAPH_SESSION_RUNNER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cpp_ext/graph/signature.h"
#include "cpp_ext/graph/step_runner.h"
#include "tensorflow/core/public/session.h"

namespace tessera {

// Immutable after Build; thread-safe.
class SessionRunner : public StepRunner {
 public:
  // `session` must outlive the runner.
  static absl::StatusOr<std::unique_ptr<SessionRunner>> Build(const Signature& signature, tensorflow::Session* session);
  ~SessionRunner() override;

  // Runs `step` on WorkerPool::Sessions() and calls step->Finish there;
  // RESOURCE_EXHAUSTED at once, on this thread, when the pool is full. A step
  // cannot be cancelled once it runs.
  void RunAsync(Step* step) const override;
  bool needs_context() const override { return false; }
  bool ends_elsewhere() const override { return true; }

 private:
  SessionRunner(tensorflow::Session* session, tensorflow::Session::CallableHandle handle)
      : session_(session), handle_(handle) {}

  tensorflow::Session* const session_;
  const tensorflow::Session::CallableHandle handle_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_SESSION_RUNNER_H_
