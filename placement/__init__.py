"""Where things live: the store, the records in it, and the planner that decides. Knows nothing of TensorFlow."""
