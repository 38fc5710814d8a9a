"""The shard server process: holds the blobs that the placement gives it and answers lookups."""
