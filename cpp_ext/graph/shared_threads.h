// The threads that the process's graphs share.
#ifndef TESSERA_CPP_EXT_GRAPH_SHARED_THREADS_H_
#define TESSERA_CPP_EXT_GRAPH_SHARED_THREADS_H_

namespace tessera {

// Starts TensorFlow's pools (`intra_op_threads` for parts of an operation; 0: one a core) and the thread of the
// background, which would otherwise start when the first graph is loaded. A thread inherits its priority, and graphs
// are loaded at a low one. Thread-safe; may be called again, to no effect.
void StartSharedThreads(int intra_op_threads);

}  // namespace tessera

#endif  // TESSERA_CPP_EXT_GRAPH_SHARED_THREADS_H_
