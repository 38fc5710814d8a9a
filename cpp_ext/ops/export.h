// What `libtessera_ops.so` shows to `_graph`, which links it; everything else
// in the library is hidden.
#ifndef TESSERA_CPP_EXT_OPS_EXPORT_H_
#define TESSERA_CPP_EXT_OPS_EXPORT_H_

#define TESSERA_OPS_EXPORT __attribute__((visibility("default")))

#endif  // TESSERA_CPP_EXT_OPS_EXPORT_H_
