"""The router process: answers TensorFlow Serving's API and asks shard servers for the rows it needs."""
