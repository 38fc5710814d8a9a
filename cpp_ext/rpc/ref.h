// A counted reference to an object that has AddRef() and Release(), for the objects that cross the C interface.
//
// Thread-safety: as std::shared_ptr.
#ifndef TESSERA_CPP_EXT_RPC_REF_H_
#define TESSERA_CPP_EXT_RPC_REF_H_

#include <utility>

namespace tessera {

template <typename T>
class Ref {
 public:
  Ref() = default;
  ~Ref() {
    if (object_ != nullptr) object_->Release();
  }
  Ref(const Ref& other) : object_(other.object_) {
    if (object_ != nullptr) object_->AddRef();
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }

  // Takes over a reference that the caller owns, such as that of a new object.
  static Ref Adopt(T* object) {
    Ref ref;
    ref.object_ = object;
    return ref;
  }
  // Adds a reference.
  static Ref Share(T* object) {
    if (object != nullptr) object->AddRef();
    return Adopt(object);
  }

  // Hands the reference to the caller, who releases it.
  [[nodiscard]] T* Detach() { return std::exchange(object_, nullptr); }
  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  T* object_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_RPC_REF_H_
