// The weight files that graphs of this process may name.
//
// A blob is named by the SHA-256 of its bytes, so that one process-wide table
// is enough: whoever registers a digest, the bytes are the same, and graphs
// that share a weight share its mapping.
//
// Thread-safety: all functions may be called from any thread.
#ifndef TESSERA_CPP_EXT_OPS_BLOB_REGISTRY_H_
#define TESSERA_CPP_EXT_OPS_BLOB_REGISTRY_H_

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "cpp_ext/ops/export.h"

namespace tessera {

// Read-only bytes of a blob, aligned for Eigen (64 bytes); unmapped when the
// last user is gone.
class TESSERA_OPS_EXPORT BlobBytes {
 public:
  BlobBytes(void* data, size_t size_bytes, bool mapped) : data_(data), size_bytes_(size_bytes), mapped_(mapped) {}
  ~BlobBytes();
  BlobBytes(const BlobBytes&) = delete;
  BlobBytes& operator=(const BlobBytes&) = delete;
  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* const data_;
  const size_t size_bytes_;
  const bool mapped_;
};

// Keeps a set of digests known for as long as it lives.
class TESSERA_OPS_EXPORT BlobSet {
 public:
  // `paths` maps digests (hex) to files.
  explicit BlobSet(std::map<std::string, std::string> paths);
  ~BlobSet();
  BlobSet(const BlobSet&) = delete;
  BlobSet& operator=(const BlobSet&) = delete;
  bool contains(const std::string& digest) const { return paths_.count(digest) != 0; }

 private:
  const std::map<std::string, std::string> paths_;
};

// Why a blob cannot be used; code is gRPC's number, 0 is OK.
struct BlobError {
  int code = 0;
  std::string message;
};

// Maps the blob `digest` of some living BlobSet, or joins an existing mapping.
// `weight` is named in errors: NOT_FOUND (nobody registered the digest, or no
// such file), DATA_LOSS (other size), RESOURCE_EXHAUSTED (mmap).
TESSERA_OPS_EXPORT BlobError OpenBlob(const std::string& digest, size_t size_bytes, const std::string& weight,
                                      std::shared_ptr<BlobBytes>* blob);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_OPS_BLOB_REGISTRY_H_
