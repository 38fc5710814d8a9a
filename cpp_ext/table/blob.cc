#include "cpp_ext/table/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>
#include <utility>

namespace tessera {
namespace {

Status SystemError(const std::string& path, const char* what, int error) {
  Code code = Code::kInternal;
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      code = Code::kNotFound;
      break;
    case EACCES:
    case EPERM:
      code = Code::kPermissionDenied;
      break;
    case ENOMEM:
    case EAGAIN:
    case EMFILE:
    case ENFILE:
      code = Code::kResourceExhausted;
      break;
    case EIO:
    case EFAULT:     // populating: the device cannot read a page
    case EHWPOISON:  // memory that the hardware reports as damaged
      code = Code::kDataLoss;
      break;
    default:
      break;
  }
  return Status(code, "blob " + path + ": " + what + ": " + std::generic_category().message(error));
}

// Reads everything into memory and into the page table.
int Populate(void* data, size_t size_bytes) {
#ifdef MADV_POPULATE_READ
  if (madvise(data, size_bytes, MADV_POPULATE_READ) == 0) return 0;
  if (errno != EINVAL) return errno;
#endif
  // Linux before 5.14: start reading; the pages are mapped when they are touched.
  return madvise(data, size_bytes, MADV_WILLNEED) == 0 ? 0 : errno;
}

// Maps the open file. Takes no ownership of `file`.
Status MapFile(int file, const std::string& path, uint64_t size_bytes, bool populate, void** data) {
  struct stat info;
  if (fstat(file, &info) != 0) return SystemError(path, "cannot be examined", errno);
  if (!S_ISREG(info.st_mode)) return Status(Code::kDataLoss, "blob " + path + ": expected a regular file");
  if (static_cast<uint64_t>(info.st_size) != size_bytes) {
    return Status(Code::kDataLoss, "blob " + path + ": size: got " + std::to_string(info.st_size) +
                                       " bytes, expected " + std::to_string(size_bytes));
  }
  *data = nullptr;
  if (size_bytes == 0) return Status();  // mmap refuses an empty range
  void* mapped = mmap(nullptr, size_bytes, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) return SystemError(path, "cannot be mapped", errno);
  // Advice may be declined (a file system without huge pages); the mapping works all the same. Huge pages only for what
  // is read whole: where rows are read as they are touched, they would bring in megabytes for each row.
  madvise(mapped, size_bytes, populate ? MADV_HUGEPAGE : MADV_RANDOM);
  if (populate) {
    const int error = Populate(mapped, size_bytes);
    if (error != 0) {
      munmap(mapped, size_bytes);
      return SystemError(path, "cannot be read into memory", error);
    }
  }
  *data = mapped;
  return Status();
}

}  // namespace

Blob::Blob(std::string path, uint64_t size_bytes, const uint8_t* data)
    : path_(std::move(path)), size_bytes_(size_bytes), data_(data) {}

Blob::~Blob() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_bytes_);
}

Status Blob::Map(const std::string& path, uint64_t size_bytes, bool populate, std::shared_ptr<const Blob>* blob) {
  // O_NONBLOCK: opening a FIFO by mistake must not hang.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return SystemError(path, "cannot be opened", errno);
  void* data = nullptr;
  Status status = MapFile(file, path, size_bytes, populate, &data);
  close(file);
  if (status.ok()) blob->reset(new Blob(path, size_bytes, static_cast<const uint8_t*>(data)));
  return status;
}

}  // namespace tessera
