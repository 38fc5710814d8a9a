// Exact division by a number that is known only at run time but used often: one multiplication and one shift.
#ifndef TESSERA_CPP_EXT_BASE_FAST_DIV_H_
#define TESSERA_CPP_EXT_BASE_FAST_DIV_H_

#include <cstdint>

namespace tessera {

// A divisor in [1, 2^63]. Quotients are exact for every dividend below 2^63.
//
// With shift = ceil(log2(divisor)), the multiplier is 2^(63+shift) / divisor rounded up past the next integer, at most
// 2^64 - 1; the excess over the exact reciprocal, at most 2^shift, is too small to reach the next quotient for
// dividends of 63 bits. The dividend is doubled so that the result starts at the upper half of the product.
class FastDivisor {
 public:
  // REQUIRES: 1 <= divisor <= 2^63.
  explicit FastDivisor(uint64_t divisor)
      : divisor_(divisor),
        shift_(divisor == 1 ? 0 : 64 - __builtin_clzll(divisor - 1)),
        multiplier_(static_cast<uint64_t>((static_cast<unsigned __int128>(1) << (63 + shift_)) / divisor + 1)) {}

  uint64_t divisor() const { return divisor_; }

  // REQUIRES: dividend < 2^63.
  uint64_t Quotient(uint64_t dividend) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(dividend << 1) * multiplier_ >> 64) >> shift_;
  }
  uint64_t Remainder(uint64_t dividend, uint64_t quotient) const { return dividend - quotient * divisor_; }

 private:
  uint64_t divisor_;
  int shift_;
  uint64_t multiplier_;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_BASE_FAST_DIV_H_
