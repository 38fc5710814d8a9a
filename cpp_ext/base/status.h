// The outcome of an operation inside the native core: a gRPC status code and a message.
//
// The core throws nothing; `cpp_ext/python/status_caster.h` turns a Status into the exception of its code.
// Thread-safety: a value type, like std::string.
#ifndef TESSERA_CPP_EXT_BASE_STATUS_H_
#define TESSERA_CPP_EXT_BASE_STATUS_H_

#include <string>
#include <utility>

namespace tessera {

// gRPC's (and TensorFlow's) numbers; part of the wire format, never renumbered.
enum class Code : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BASE_STATUS_H_
