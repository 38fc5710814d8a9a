"""One task of the training cluster: a parameter server or a worker. Runs until it is told to end.

In a real cluster each task is a pod or a machine of its own, and `train.py` finds it by its address.
"""

from __future__ import annotations

import argparse
import json

import tensorflow as tf


def main() -> None:
    """Serve the coordinator."""
    parser = argparse.ArgumentParser(prog="python -m examples.train_to_serve.task", description=__doc__)
    parser.add_argument("--cluster", type=json.loads, required=True, help='JSON: {"worker": [HOST:PORT, …], "ps": […]}')
    parser.add_argument("--job", choices=("worker", "ps"), required=True, help="what this task is")
    parser.add_argument("--index", type=int, required=True, help="which of them, from 0")
    options = parser.parse_args()
    server = tf.distribute.Server(
        tf.train.ClusterSpec(options.cluster), job_name=options.job, task_index=options.index, protocol="grpc"
    )
    server.join()


if __name__ == "__main__":
    main()
