"""Generated protobuf modules (from the .proto files here) and nothing else."""
