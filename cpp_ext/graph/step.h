// One execution of a signature: its inputs, its results and what TensorFlow
// needs to run it. Made once and reused, so that a request allocates as little
// as possible.
//
// Thread-safety: one execution at a time; Cancel may be called from any thread
// while the step's owner keeps it alive.
#ifndef TESSERA_CPP_EXT_GRAPH_STEP_H_
#define TESSERA_CPP_EXT_GRAPH_STEP_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cpp_ext/ops/step_context.h"
#include "tensorflow/core/common_runtime/rendezvous_mgr.h"
#include "tensorflow/core/framework/cancellation.h"
#include "tensorflow/core/framework/function.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/tensor.h"

namespace tessera {

class ServedVersion;

// A loop whose steps are batched; told when a request is in it.
class BatchedLoop {
 public:
  virtual ~BatchedLoop() = default;
  virtual void Enter() = 0;
  virtual void Leave() = 0;
};

class Step : public tensorflow::CallFrameInterface {
 public:
  // Runs once when the execution has ended; the step may be reused or destroyed
  // inside.
  using Done = void (*)(void* arg, absl::Status status);

  Step() = default;
  ~Step() override = default;

  // How often a step can be begun again.
  static constexpr size_t kMaxAgain = 2;

  // Sizes for the next execution; `args()` are then to be filled.
  void Reset(size_t args_count, size_t results_count) {
    args_.assign(args_count, tensorflow::Tensor());
    results_.assign(results_count, tensorflow::Tensor());
    if (!std::exchange(again_, false)) cancellations_[current_].emplace();
  }
  // Drops what the execution that has ended needed, so that Reset can begin another one for the same request. A failure
  // cancels what is left of an execution; the next one is not concerned by that, but by every Cancel from now on.
  // REQUIRES: Reset was called; at most kMaxAgain times until Clear.
  void BeginAgain() {
    Drop();
    const size_t next = current_ + 1;
    cancellations_[next].emplace();
    current_ = next;
    again_ = true;
  }
  // For another execution on the same args(), which a Cancel of this one ends too.
  void ResetResults(size_t results_count) { results_.assign(results_count, tensorflow::Tensor()); }
  // Drops the tensors and what was needed to run. REQUIRES: no Cancel comes until Reset.
  void Clear() {
    Drop();
    current_ = 0;
    again_ = false;
  }

  std::vector<tensorflow::Tensor>& args() { return args_; }
  const std::vector<tensorflow::Tensor>& args() const { return args_; }
  std::vector<tensorflow::Tensor>& results() { return results_; }
  StepSlot& slot() { return slot_; }
  tensorflow::CancellationManager* cancellation() { return &*cancellations_[current_]; }
  // Asks the execution to end early. REQUIRES: Reset was called.
  void Cancel() { cancellation()->StartCancel(); }

  void set_done(Done done, void* arg) {
    done_ = done;
    done_arg_ = arg;
  }
  void Finish(absl::Status status) {
    for (BatchedLoop* loop : std::exchange(loops_, {})) loop->Leave();
    done_(done_arg_, std::move(status));
  }

  // What the step's graph and route belong to. Kept until Clear, and by batches that the step takes part in, which may
  // go on after its end. REQUIRED for graphs with batches.
  void set_pin(std::shared_ptr<const ServedVersion> pin) { pin_ = std::move(pin); }
  const std::shared_ptr<const ServedVersion>& pin() const { return pin_; }

  // The step is inside `loop` from its first batched op in it until LeaveLoop or its end. Any thread of the step.
  void EnterLoop(BatchedLoop* loop) {
    std::lock_guard<std::mutex> lock(loops_mu_);
    if (std::find(loops_.begin(), loops_.end(), loop) != loops_.end()) return;
    loops_.push_back(loop);
    loop->Enter();
  }
  void LeaveLoop(BatchedLoop* loop) {
    {
      std::lock_guard<std::mutex> lock(loops_mu_);
      const auto found = std::find(loops_.begin(), loops_.end(), loop);
      if (found == loops_.end()) return;
      loops_.erase(found);
    }
    loop->Leave();  // may start batches, and answer this step's calls
  }

  // For the executor.
  int64_t BeginContext() {
    slot_.context().step = this;
    return slot_.BeginStep();
  }
  tensorflow::ScopedStepContainer* MakeContainer(int64_t step_id, tensorflow::ResourceMgr* resources) {
    container_.emplace(step_id, [resources](const std::string& name) { resources->Cleanup(name).IgnoreError(); });
    return &*container_;
  }
  tensorflow::RendezvousInterface* MakeRendezvous(const tensorflow::DeviceMgr* devices) {
    rendezvous_.emplace(devices);
    return &*rendezvous_;
  }

  // CallFrameInterface: the graph's _Arg and _Retval nodes.
  size_t num_args() const override { return args_.size(); }
  size_t num_retvals() const override { return results_.size(); }
  absl::Status GetArg(int index, const tensorflow::Tensor** value) override {
    *value = &args_[static_cast<size_t>(index)];
    return absl::OkStatus();
  }
  absl::Status SetRetval(int index, const tensorflow::Tensor& value) override {
    results_[static_cast<size_t>(index)] = value;
    return absl::OkStatus();
  }

 private:
  void Drop() {
    args_.clear();
    results_.clear();
    container_.reset();
    rendezvous_.reset();
    pin_ = nullptr;
  }

  std::vector<tensorflow::Tensor> args_;
  std::vector<tensorflow::Tensor> results_;
  StepSlot slot_;
  // Of the first execution and those that were begun again: a Cancel may still be at work on one that is over.
  std::array<std::optional<tensorflow::CancellationManager>, 1 + kMaxAgain> cancellations_;
  std::atomic<size_t> current_{0};
  bool again_ = false;  // BeginAgain was called, and Reset was not
  std::optional<tensorflow::ScopedStepContainer> container_;
  std::optional<tensorflow::PrivateIntraProcessRendezvous> rendezvous_;
  std::shared_ptr<const ServedVersion> pin_;
  std::mutex loops_mu_;
  std::vector<BatchedLoop*> loops_;  // guarded by loops_mu_ while the step runs
  Done done_ = nullptr;
  void* done_arg_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_STEP_H_
