#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "cpp_ext/table/blob.h"
#include "tests/cpp/table_fixture.h"

namespace tessera {
namespace {

TEST(BlobTest, MapsBytes) {
  TemporaryDirectory directory;
  const std::string bytes = RowBytes(1, 1, 10'000);
  const std::string path = directory.Write(bytes);
  for (const bool populate : {false, true}) {
    std::shared_ptr<const Blob> blob;
    ASSERT_TRUE(Blob::Map(path, bytes.size(), populate, &blob).ok());
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(blob->data()), blob->size_bytes()), bytes);
    EXPECT_EQ(blob->path(), path);
  }
}

TEST(BlobTest, OutlivesItsFile) {
  TemporaryDirectory directory;
  const std::string path = directory.Write("abc");
  std::shared_ptr<const Blob> blob;
  ASSERT_TRUE(Blob::Map(path, 3, false, &blob).ok());
  unlink(path.c_str());
  EXPECT_EQ(blob->data()[2], 'c');
}

TEST(BlobTest, EmptyFile) {
  TemporaryDirectory directory;
  std::shared_ptr<const Blob> blob;
  ASSERT_TRUE(Blob::Map(directory.Write(""), 0, true, &blob).ok());
  EXPECT_EQ(blob->size_bytes(), 0u);
}

void ExpectError(const std::string& path, uint64_t size_bytes, Code code, const std::string& part) {
  std::shared_ptr<const Blob> blob;
  const Status status = Blob::Map(path, size_bytes, false, &blob);
  EXPECT_EQ(status.code(), code) << status.message();
  EXPECT_NE(status.message().find(path), std::string::npos) << status.message();
  EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
  EXPECT_EQ(blob, nullptr);
}

TEST(BlobTest, NamesWhatIsWrong) {
  TemporaryDirectory directory;
  const std::string path = directory.Write("abc");
  ExpectError(directory.path() + "/absent", 3, Code::kNotFound, "cannot be opened");
  ExpectError(path + "/below", 3, Code::kNotFound, "cannot be opened");
  ExpectError(path, 2, Code::kDataLoss, "got 3 bytes, expected 2");
  ExpectError(path, 4, Code::kDataLoss, "got 3 bytes, expected 4");
  ExpectError(path, 0, Code::kDataLoss, "got 3 bytes, expected 0");
  ExpectError(directory.path(), 4096, Code::kDataLoss, "regular file");
  const std::string fifo = directory.path() + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  ExpectError(fifo, 0, Code::kDataLoss, "regular file");
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they take terabytes of address space themselves
TEST(BlobTest, AddressSpaceLimit) {
  TemporaryDirectory directory;
  const std::string path = directory.Write("");
  const uint64_t size_bytes = uint64_t{64} << 30;
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size_bytes)), 0);  // takes no space on the disk
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = uint64_t{32} << 30;
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limited), 0);
  ExpectError(path, size_bytes, Code::kResourceExhausted, "cannot be mapped");
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
}
#endif

}  // namespace
}  // namespace tessera
