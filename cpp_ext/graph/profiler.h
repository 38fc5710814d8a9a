// One profile of this process: what TensorFlow's tracers record between a start and an end.
//
// Thread-safety: all methods may be called from any thread.
#ifndef TESSERA_CPP_EXT_GRAPH_PROFILER_H_
#define TESSERA_CPP_EXT_GRAPH_PROFILER_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tsl {
class ProfilerSession;
}

namespace tessera {

class Profiler {
 public:
  // Starts to record. `options` is a serialized tensorflow.ProfileOptions; without a version they are TensorFlow's
  // defaults. Recording slows every request down, and takes memory for each operation that runs.
  // UNAVAILABLE: another profile of this process is being recorded; INVALID_ARGUMENT: no ProfileOptions.
  static absl::StatusOr<std::unique_ptr<Profiler>> Start(absl::string_view options);

  // Throws away what was recorded and not collected.
  ~Profiler();
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // Ends the recording and gives what was recorded, a serialized tensorflow.profiler.XSpace; `is_empty` tells whether
  // no tracer saw anything. REQUIRES: called once. Cost: some milliseconds per thousand events.
  absl::Status Collect(std::string* xspace, bool* is_empty);

 private:
  explicit Profiler(std::unique_ptr<tsl::ProfilerSession> session);

  const std::unique_ptr<tsl::ProfilerSession> session_;
};

// The serialized FileDescriptorProto of a .proto file that this TensorFlow was built with, such as
// "tensorflow/core/framework/tensor.proto". NOT_FOUND: there is none.
absl::StatusOr<std::string> FileDescriptorOf(absl::string_view file);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_PROFILER_H_
