"""Training on parameter servers, serving on shard servers: the programs of docs/tutorials/train-to-serve.md."""
