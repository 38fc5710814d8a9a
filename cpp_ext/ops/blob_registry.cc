#include "cpp_ext/ops/blob_registry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mutex>
#include <unordered_map>
#include <utility>

namespace tessera {
namespace {

constexpr int kNotFound = 5;
constexpr int kResourceExhausted = 8;
constexpr int kDataLoss = 15;
constexpr size_t kAlignmentBytes = 64;
// Below this a copy is cheaper than a mapping of its own, of which a process
// has only some 65,000.
constexpr size_t kCopyBelowBytes = 64 << 10;

struct Entry {
  std::string path;
  int users = 0;
  std::weak_ptr<BlobBytes> bytes;
};

struct Registry {
  std::mutex mu;
  std::unordered_map<std::string, Entry> entries;  // guarded by mu
};

Registry& TheRegistry() {
  static Registry* registry = new Registry;
  return *registry;
}

BlobError Fail(int code, const std::string& weight, const std::string& path, const std::string& what) {
  return {code, "weight " + weight + ": blob " + path + ": " + what};
}

bool ReadAll(int fd, char* to, size_t size_bytes) {
  while (size_bytes > 0) {
    const ssize_t got = read(fd, to, size_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    to += got;
    size_bytes -= static_cast<size_t>(got);
  }
  return true;
}

BlobError MapFile(const std::string& path, size_t size_bytes, const std::string& weight,
                  std::shared_ptr<BlobBytes>* blob) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Fail(kNotFound, weight, path, strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { close(fd); }
  } closer{fd};
  struct stat info;
  if (fstat(fd, &info) != 0) return Fail(kDataLoss, weight, path, strerror(errno));
  if (static_cast<size_t>(info.st_size) != size_bytes) {
    return Fail(kDataLoss, weight, path,
                "has " + std::to_string(info.st_size) + " bytes, expected " + std::to_string(size_bytes));
  }
  if (size_bytes < kCopyBelowBytes) {
    void* copy = nullptr;
    if (posix_memalign(&copy, kAlignmentBytes, size_bytes == 0 ? 1 : size_bytes) != 0) {
      return Fail(kResourceExhausted, weight, path, "out of memory");
    }
    auto bytes = std::make_shared<BlobBytes>(copy, size_bytes, /*mapped=*/false);
    if (!ReadAll(fd, static_cast<char*>(copy), size_bytes)) return Fail(kDataLoss, weight, path, "cannot be read");
    *blob = std::move(bytes);
    return {};
  }
  void* data = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return Fail(kResourceExhausted, weight, path, strerror(errno));
  *blob = std::make_shared<BlobBytes>(data, size_bytes, /*mapped=*/true);
  return {};
}

}  // namespace

BlobBytes::~BlobBytes() {
  if (mapped_) {
    munmap(data_, size_bytes_);
  } else {
    free(data_);
  }
}

BlobSet::BlobSet(std::map<std::string, std::string> paths) : paths_(std::move(paths)) {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mu);
  for (const auto& [digest, path] : paths_) {
    Entry& entry = registry.entries[digest];
    entry.path = path;  // the newest name: an older one may have been removed
                        // with its package
    ++entry.users;
  }
}

BlobSet::~BlobSet() {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mu);
  for (const auto& item : paths_) {
    auto found = registry.entries.find(item.first);
    if (--found->second.users == 0) registry.entries.erase(found);
  }
}

BlobError OpenBlob(const std::string& digest, size_t size_bytes, const std::string& weight,
                   std::shared_ptr<BlobBytes>* blob) {
  Registry& registry = TheRegistry();
  std::lock_guard<std::mutex> lock(registry.mu);  // mapping does not read the file, so this is short
  auto found = registry.entries.find(digest);
  if (found == registry.entries.end()) {
    return {kNotFound, "weight " + weight + ": blob " + digest + " is not among the blobs given to the graph"};
  }
  *blob = found->second.bytes.lock();
  if (*blob != nullptr && (*blob)->size_bytes() == size_bytes) return {};
  BlobError error = MapFile(found->second.path, size_bytes, weight, blob);
  if (error.code == 0) found->second.bytes = *blob;
  return error;
}

}  // namespace tessera
