// The initialisers of `_rpc`, one for each group of bound types. All require the GIL.
#ifndef TESSERA_CPP_EXT_PYTHON_BIND_RPC_H_
#define TESSERA_CPP_EXT_PYTHON_BIND_RPC_H_

#include <pybind11/pybind11.h>

#include <memory>

#include "cpp_ext/rpc/poller.h"

namespace tessera {

void BindTable(pybind11::module_& module);
void BindServer(pybind11::module_& module);
void BindFanout(pybind11::module_& module);

// The pollers of a bound Server. REQUIRES: `server` is one.
std::shared_ptr<Pollers> PollersOf(const pybind11::handle& server);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_PYTHON_BIND_RPC_H_
