#include "cpp_ext/rpc/listen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

namespace tessera {
namespace {

Status Unavailable(const std::string& address, const std::string& what) {
  return Status(Code::kUnavailable, "address " + address + ": cannot be bound: " + what);
}

}  // namespace

Status CheckAddress(const std::string& address) {
  const std::string expected = "expected host:port with a port of 0 to 65535, or unix:path";
  if (address.rfind("unix:", 0) == 0 && address.size() > 5) {
    constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
    if (address.size() - 5 <= kMaxPath) return Status();
    return Status(Code::kInvalidArgument, "address " + address + ": the path of a Unix socket has at most " +
                                              std::to_string(kMaxPath) + " bytes, got " +
                                              std::to_string(address.size() - 5));
  }
  const size_t colon = address.rfind(':');
  if (colon != std::string::npos && colon > 0) {
    const std::string port = address.substr(colon + 1);
    const bool is_number =
        !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    if (is_number && std::stoi(port) <= 65535) return Status();
  }
  return Status(Code::kInvalidArgument, "address " + address + ": " + expected);
}

Status ClaimUnixSocket(const std::string& address) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  address.copy(name.sun_path, sizeof(name.sun_path) - 1, 5);
  struct stat file;
  if (lstat(name.sun_path, &file) != 0) {
    if (errno == ENOENT) return Status();
    return Unavailable(address, strerror(errno));
  }
  if (!S_ISSOCK(file.st_mode)) return Unavailable(address, "the file exists and is not a socket");
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) return Unavailable(address, strerror(errno));
  const int error = connect(probe, reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0 ? 0 : errno;
  close(probe);
  // EAGAIN: somebody listens, but is slow to accept.
  if (error == 0 || error == EAGAIN) return Unavailable(address, "another process listens there");
  if (error != ECONNREFUSED && error != ENOENT) return Unavailable(address, strerror(error));
  if (unlink(name.sun_path) != 0 && errno != ENOENT) return Unavailable(address, strerror(errno));
  return Status();
}

}  // namespace tessera
