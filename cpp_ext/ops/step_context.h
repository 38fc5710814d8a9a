// What a running step (one execution of a signature) gives to Tessera's
// kernels.
//
// A kernel sees nothing of its request but the step id, which TensorFlow hands
// down into functions and loops. So a step's id names a slot of a fixed table
// and the slot's generation; an id that some other TensorFlow session made is
// recognised as not ours.
//
// Thread-safety: slots are taken and given back under a lock; `FindStep` takes
// none. A slot's context is written by its owner before the step starts and
// read by kernels while it runs.
#ifndef TESSERA_CPP_EXT_OPS_STEP_CONTEXT_H_
#define TESSERA_CPP_EXT_OPS_STEP_CONTEXT_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "cpp_ext/base/abi.h"
#include "cpp_ext/ops/export.h"

namespace tessera {

// The first error that a lookup of the step met, kept because executors may
// report another code than the kernel's.
class TESSERA_OPS_EXPORT StepError {
 public:
  void Set(int code, const char* message, size_t message_size);
  // Returns the code, 0 if there was no error, and moves the message out.
  int Take(std::string* message);

 private:
  std::mutex mu_;
  int code_ = 0;
  std::string message_;
};

class Step;  // of the graph layer

struct StepContext {
  Step* step = nullptr;
  const TesseraFanoutApi* fanout = nullptr;  // null: the graph was loaded without a fan-out
  TesseraRoute* route = nullptr;             // borrowed from the version that the step pins
  int64_t deadline_ns = TESSERA_NO_DEADLINE;
  StepError error;
};

// A place in the table of step contexts, held for as long as the object lives
// and used by one step at a time.
class TESSERA_OPS_EXPORT StepSlot {
 public:
  // `valid()` is false when all slots (65,536) are taken.
  StepSlot();
  ~StepSlot();
  StepSlot(const StepSlot&) = delete;
  StepSlot& operator=(const StepSlot&) = delete;

  bool valid() const { return index_ >= 0; }
  // Makes earlier ids of this slot unknown and returns the id of the next step.
  // REQUIRES: valid().
  int64_t BeginStep();
  // REQUIRES: valid().
  StepContext& context();

 private:
  int32_t index_;
};

// Returns the context of a step, or null when `step_id` is not the id of a
// running step of this process.
TESSERA_OPS_EXPORT StepContext* FindStep(int64_t step_id);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_OPS_STEP_CONTEXT_H_
