#include "bench/cpp/batch/batch_samples.h"

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "tensorflow/core/framework/tensor.pb.h"

namespace tessera::bench {
namespace {

namespace tf = tensorflow;

constexpr float kTolerance = 1e-4f;

class Reader {
 public:
  explicit Reader(std::string bytes) : bytes_(std::move(bytes)) {}

  uint32_t Number() {
    uint32_t value = 0;
    if (!Has(sizeof value)) return 0;
    for (size_t i = 0; i < sizeof value; ++i) value |= uint32_t{static_cast<uint8_t>(bytes_[at_++])} << 8 * i;
    return value;
  }
  std::string String() {
    const uint32_t size = Number();
    if (!Has(size)) return {};
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  tf::Tensor Tensor() {
    tf::TensorProto proto;
    tf::Tensor tensor;
    if (!proto.ParseFromString(String()) || !tensor.FromProto(proto)) ok_ = false;
    return tensor;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return at_ == bytes_.size(); }

 private:
  bool Has(size_t size) { return ok_ = ok_ && size <= bytes_.size() - at_; }

  std::string bytes_;
  size_t at_ = 0;
  bool ok_ = true;
};

}  // namespace

absl::StatusOr<Samples> ReadSamples(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  Reader reader(std::string(std::istreambuf_iterator<char>(file), {}));
  Samples samples;
  const uint32_t inputs = reader.Number(), outputs = reader.Number(), count = reader.Number();
  for (uint32_t i = 0; i < inputs && reader.ok(); ++i) samples.inputs.push_back(reader.String());
  for (uint32_t i = 0; i < outputs && reader.ok(); ++i) samples.outputs.push_back(reader.String());
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    const bool poisoned = reader.Number() != 0;
    Sample sample;
    for (uint32_t k = 0; k < inputs && reader.ok(); ++k) sample.inputs.push_back(reader.Tensor());
    for (uint32_t k = 0; k < outputs && reader.ok() && !poisoned; ++k) sample.expected.push_back(reader.Tensor());
    (poisoned ? samples.poisoned : samples.good).push_back(std::move(sample));
  }
  if (!reader.ok() || !reader.at_end() || samples.good.empty()) {
    return absl::DataLossError(absl::StrCat(path, ": is not a file of samples"));
  }
  return samples;
}

bool Agrees(const tf::Tensor& got, const tf::Tensor& expected) {
  if (got.dtype() != expected.dtype() || got.shape() != expected.shape()) return false;
  if (got.dtype() == tf::DT_STRING) {
    const auto a = got.flat<tf::tstring>(), b = expected.flat<tf::tstring>();
    for (int64_t i = 0; i < got.NumElements(); ++i) {
      if (a(i) != b(i)) return false;
    }
    return true;
  }
  if (got.dtype() != tf::DT_FLOAT) return got.tensor_data() == expected.tensor_data();
  const auto a = got.flat<float>(), b = expected.flat<float>();
  for (int64_t i = 0; i < got.NumElements(); ++i) {
    if (!(std::fabs(a(i) - b(i)) <= kTolerance * (1 + std::fabs(b(i))))) return false;
  }
  return true;
}

}  // namespace tessera::bench
