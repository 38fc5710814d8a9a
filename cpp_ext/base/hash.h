// Hashes: xxh64, which names slots and must never change, and a cheap mixer for hash tables in memory.
#ifndef TESSERA_CPP_EXT_BASE_HASH_H_
#define TESSERA_CPP_EXT_BASE_HASH_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blobs, the wire format and the hashes are little-endian");

namespace tessera {

// Reads an integer that need not be aligned.
template <typename T>
inline T LoadLittleEndian(const void* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

// Takes xxh64 of bytes that may come in several parts, as if they were one run.
class XxHasher64 {
 public:
  explicit XxHasher64(uint64_t seed = 0)
      : seed_(seed), lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1} {}

  void Update(const void* data, size_t size_bytes) {
    const uint8_t* from = static_cast<const uint8_t*>(data);
    const uint8_t* const end = from + size_bytes;
    total_bytes_ += size_bytes;
    if (pending_bytes_ != 0) {
      const size_t wanted = kStripeBytes - pending_bytes_;
      const size_t taken = size_bytes < wanted ? size_bytes : wanted;
      memcpy(pending_ + pending_bytes_, from, taken);
      pending_bytes_ += taken;
      from += taken;
      if (pending_bytes_ < kStripeBytes) return;
      AddStripe(pending_);
      pending_bytes_ = 0;
    }
    for (; end - from >= static_cast<ptrdiff_t>(kStripeBytes); from += kStripeBytes) AddStripe(from);
    pending_bytes_ = static_cast<size_t>(end - from);
    if (pending_bytes_ != 0) memcpy(pending_, from, pending_bytes_);
  }

  uint64_t Finish() const {
    uint64_t hash = seed_ + kPrime5;
    if (total_bytes_ >= kStripeBytes) {
      hash = Rotate(lanes_[0], 1) + Rotate(lanes_[1], 7) + Rotate(lanes_[2], 12) + Rotate(lanes_[3], 18);
      for (const uint64_t lane : lanes_) hash = (hash ^ Round(0, lane)) * kPrime1 + kPrime4;
    }
    hash += total_bytes_;
    const uint8_t* from = pending_;
    const uint8_t* const end = pending_ + pending_bytes_;
    for (; end - from >= 8; from += 8) {
      hash = Rotate(hash ^ Round(0, LoadLittleEndian<uint64_t>(from)), 27) * kPrime1 + kPrime4;
    }
    for (; end - from >= 4; from += 4) {
      hash = Rotate(hash ^ (LoadLittleEndian<uint32_t>(from) * kPrime1), 23) * kPrime2 + kPrime3;
    }
    for (; from != end; ++from) hash = Rotate(hash ^ (*from * kPrime5), 11) * kPrime1;
    hash = (hash ^ (hash >> 33)) * kPrime2;
    hash = (hash ^ (hash >> 29)) * kPrime3;
    return hash ^ (hash >> 32);
  }

 private:
  static constexpr size_t kStripeBytes = 32;
  static constexpr uint64_t kPrime1 = 0x9E3779B185EBCA87u;
  static constexpr uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
  static constexpr uint64_t kPrime3 = 0x165667B19E3779F9u;
  static constexpr uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
  static constexpr uint64_t kPrime5 = 0x27D4EB2F165667C5u;

  static uint64_t Rotate(uint64_t value, int bits) { return (value << bits) | (value >> (64 - bits)); }
  static uint64_t Round(uint64_t lane, uint64_t word) { return Rotate(lane + word * kPrime2, 31) * kPrime1; }
  void AddStripe(const uint8_t* from) {
    for (int i = 0; i < 4; ++i) lanes_[i] = Round(lanes_[i], LoadLittleEndian<uint64_t>(from + 8 * i));
  }

  const uint64_t seed_;
  uint64_t lanes_[4];
  uint8_t pending_[kStripeBytes] = {};
  size_t pending_bytes_ = 0;
  uint64_t total_bytes_ = 0;
};

inline uint64_t XxHash64(const void* data, size_t size_bytes, uint64_t seed = 0) {
  XxHasher64 hasher(seed);
  hasher.Update(data, size_bytes);
  return hasher.Finish();
}

// The slot of a bucket: part of the placement format, equal to `placement.slots` in Python, never changed.
// `table` is UTF-8. REQUIRES: slots >= 1.
inline uint32_t SlotOf(std::string_view table, uint64_t bucket, uint32_t slots) {
  XxHasher64 hasher;
  hasher.Update(table.data(), table.size());
  const uint8_t separator = 0;
  hasher.Update(&separator, sizeof(separator));
  hasher.Update(&bucket, sizeof(bucket));
  return static_cast<uint32_t>(hasher.Finish() % slots);
}

// Spreads keys that may be close together over all bits; for tables in memory only, may change any time.
inline uint64_t MixBits(uint64_t key) {
  const unsigned __int128 product = static_cast<unsigned __int128>(key ^ 0x9E3779B97F4A7C15u) * 0xD6E8FEB86659FD93u;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BASE_HASH_H_
