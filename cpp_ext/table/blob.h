// A blob file mapped into memory: raw little-endian bytes that never change.
//
// Thread-safety: immutable after Map.
#ifndef TESSERA_CPP_EXT_TABLE_BLOB_H_
#define TESSERA_CPP_EXT_TABLE_BLOB_H_

#include <cstdint>
#include <memory>
#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

class Blob {
 public:
  // Maps the file read-only and shared; an empty file is fine. With `populate` all of it is read now, into huge pages
  // where the kernel gives them; otherwise rows are read page by page as they are touched, without read-ahead.
  // A file that is cut short after this ends the process (SIGBUS) when the lost part is read: blobs are immutable.
  //
  // NOT_FOUND: no such file. PERMISSION_DENIED: not readable. DATA_LOSS: not a regular file of exactly `size_bytes`, or
  // its device cannot read it. RESOURCE_EXHAUSTED: no address space, memory, file handles or mappings left.
  static Status Map(const std::string& path, uint64_t size_bytes, bool populate, std::shared_ptr<const Blob>* blob);
  ~Blob();
  Blob(const Blob&) = delete;
  Blob& operator=(const Blob&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size_bytes() const { return size_bytes_; }
  // Page-aligned; null when the blob is empty.
  const uint8_t* data() const { return data_; }

 private:
  Blob(std::string path, uint64_t size_bytes, const uint8_t* data);

  const std::string path_;
  const uint64_t size_bytes_;
  const uint8_t* const data_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_TABLE_BLOB_H_
