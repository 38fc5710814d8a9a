"""Keeps TensorFlow's chatter off the terminal."""

from __future__ import annotations

import logging
import os
import sys


def quiet_tensorflow() -> None:
    """Make TensorFlow use the kernels that Tessera serves with, and keep its start-up chatter off the terminal.

    No variable silences the chatter of its C++ side, which writes to file descriptor 2: that one goes nowhere, and
    Python's own stderr gets a descriptor of its own. With TF_CPP_MIN_LOG_LEVEL set, everything is left as it is.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
