#include "cpp_ext/graph/profiler.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tsl/profiler/lib/profiler_session.h"
#include "tsl/profiler/protobuf/profiler_options.pb.h"
#include "tsl/profiler/protobuf/xplane.pb.h"

namespace tessera {

absl::StatusOr<std::unique_ptr<Profiler>> Profiler::Start(absl::string_view options) {
  tensorflow::ProfileOptions parsed;
  if (options.size() > static_cast<size_t>(std::numeric_limits<int>::max()) ||
      !parsed.ParseFromArray(options.data(), static_cast<int>(options.size()))) {
    return absl::InvalidArgumentError("opts: expected a tensorflow.ProfileOptions");
  }
  if (parsed.version() == 0) parsed = tsl::ProfilerSession::DefaultOptions();
  std::unique_ptr<tsl::ProfilerSession> session = tsl::ProfilerSession::Create(parsed);
  if (const absl::Status status = session->Status(); !status.ok()) {
    return absl::UnavailableError(absl::StrCat("cannot profile now: ", status.message()));
  }
  return std::unique_ptr<Profiler>(new Profiler(std::move(session)));
}

Profiler::Profiler(std::unique_ptr<tsl::ProfilerSession> session) : session_(std::move(session)) {}
Profiler::~Profiler() = default;

absl::Status Profiler::Collect(std::string* xspace, bool* is_empty) {
  tensorflow::profiler::XSpace space;
  if (absl::Status status = session_->CollectData(&space); !status.ok()) return status;
  *is_empty = true;
  for (const tensorflow::profiler::XPlane& plane : space.planes()) {
    for (const tensorflow::profiler::XLine& line : plane.lines()) *is_empty &= line.events().empty();
  }
  if (space.SerializeToString(xspace)) return absl::OkStatus();
  return absl::ResourceExhaustedError("the profile is larger than 2 GB; profile for a shorter time");
}

absl::StatusOr<std::string> FileDescriptorOf(absl::string_view file) {
  const google::protobuf::FileDescriptor* found =
      google::protobuf::DescriptorPool::generated_pool()->FindFileByName(file);
  if (found == nullptr) return absl::NotFoundError(absl::StrCat("file ", file, ": not in this TensorFlow"));
  google::protobuf::FileDescriptorProto proto;
  found->CopyTo(&proto);
  return proto.SerializeAsString();
}

}  // namespace tessera
