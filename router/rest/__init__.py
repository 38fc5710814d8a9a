"""TensorFlow Serving's REST API, on a port and an event loop of its own."""
