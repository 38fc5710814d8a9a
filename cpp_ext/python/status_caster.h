// The one table between the core's status codes and Python's exceptions (`tessera.errors`).
//
// All functions require the GIL.
#ifndef TESSERA_CPP_EXT_PYTHON_STATUS_CASTER_H_
#define TESSERA_CPP_EXT_PYTHON_STATUS_CASTER_H_

#include <pybind11/pybind11.h>

#include <string>

#include "cpp_ext/base/status.h"

namespace tessera {

// Raises the exception of `code`, which is not OK.
[[noreturn]] inline void RaiseStatus(int code, const std::string& message) {
  const pybind11::object error_class = pybind11::module_::import("tessera.errors").attr("error_class")(code);
  PyErr_SetObject(error_class.ptr(), pybind11::str(message).ptr());
  throw pybind11::error_already_set();
}

inline void Check(const Status& status) {
  if (!status.ok()) RaiseStatus(static_cast<int>(status.code()), status.message());
}

// The status of an exception that Python code raised: a TesseraError gives its code and text, anything else INTERNAL.
inline Status StatusOf(const pybind11::error_already_set& error) {
  const pybind11::object base = pybind11::module_::import("tessera.errors").attr("TesseraError");
  if (!error.matches(base)) return Status(Code::kInternal, std::string("unexpected error: ") + error.what());
  return Status(static_cast<Code>(error.value().attr("code").cast<int>()),
                error.value().attr("message").cast<std::string>());
}

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_STATUS_CASTER_H_
