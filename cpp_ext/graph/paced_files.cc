#include "cpp_ext/graph/paced_files.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "tensorflow/core/platform/env.h"
#include "tensorflow/core/platform/file_system.h"

namespace tf = tensorflow;

namespace tessera {
namespace {

constexpr char kScheme[] = "tessera.paced";  // TensorFlow knows no hyphen there
constexpr size_t kPieceBytes = 256 << 10;    // some 100 µs, also where the memory is fresh

class PacedFile : public tf::RandomAccessFile {
 public:
  explicit PacedFile(std::unique_ptr<tf::RandomAccessFile> file) : file_(std::move(file)) {}

  absl::Status Name(absl::string_view* result) const override { return file_->Name(result); }

  absl::Status Read(tf::uint64 offset, size_t n, absl::string_view* result, char* scratch) const override {
    size_t done = 0;
    absl::Status status;
    while (done < n && status.ok()) {
      absl::string_view piece;
      status = file_->Read(offset + done, std::min(kPieceBytes, n - done), &piece, scratch + done);
      if (piece.data() != scratch + done) std::copy(piece.begin(), piece.end(), scratch + done);
      done += piece.size();
    }
    *result = absl::string_view(scratch, done);
    return status;
  }

 private:
  const std::unique_ptr<tf::RandomAccessFile> file_;
};

// The local file system, which finds the path behind a scheme by itself.
class PacedFileSystem : public tf::WrappedFileSystem {
 public:
  using tf::WrappedFileSystem::NewRandomAccessFile;
  using tf::WrappedFileSystem::WrappedFileSystem;

  absl::Status NewRandomAccessFile(const std::string& name, tf::TransactionToken* token,
                                   std::unique_ptr<tf::RandomAccessFile>* result) override {
    std::unique_ptr<tf::RandomAccessFile> file;
    const absl::Status status = tf::WrappedFileSystem::NewRandomAccessFile(name, token, &file);
    if (status.ok()) *result = std::make_unique<PacedFile>(std::move(file));
    return status;
  }
};

// Whether TensorFlow knows the scheme now. Where it does not, files are read as it reads them.
bool Register() {
  tf::FileSystem* local = nullptr;
  tf::Env* const env = tf::Env::Default();
  if (!env->GetFileSystemForFile("/", &local).ok()) return false;
  return env->RegisterFileSystem(kScheme, std::make_unique<PacedFileSystem>(local, nullptr)).ok();
}

}  // namespace

std::string PacedPath(const std::string& path) {
  static const bool registered = Register();
  return registered ? absl::StrCat(kScheme, "://", std::filesystem::absolute(path).string()) : path;
}

absl::Status WithoutPacedPaths(const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrReplaceAll(status.message(), {{absl::StrCat(kScheme, "://"), ""}}));
}

}  // namespace tessera
