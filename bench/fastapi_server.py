"""What people write by hand: `python -m bench.fastapi_server NAME DIR READY_FILE` serves a SavedModel until SIGTERM.

FastAPI, uvicorn with uvloop and httptools, and TensorFlow's own signature; TensorFlow Serving's path and row format.
"""

# mypy: disable-error-code="misc"
# (TensorFlow has no type stubs.)

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path


def main() -> int:
    """Return the exit code."""
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    _serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    return 0


def _serve(model: str, directory: Path, ready_file: Path) -> None:
    import tensorflow as tf
    import uvicorn
    import uvloop
    from fastapi import FastAPI
    from pydantic import BaseModel

    signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
    app = FastAPI()

    class Rows(BaseModel):
        instances: list[float]

    # Not a plain `def`: that would go through a pool of threads, which is slower for so small a model.
    async def predict(rows: Rows) -> dict[str, list[float]]:
        return {"predictions": signature(x=tf.constant(rows.instances))["y"].numpy().tolist()}

    # `from __future__ import annotations` hides local names from FastAPI.
    predict.__annotations__ = {"rows": Rows, "return": dict[str, list[float]]}
    app.post(f"/v1/models/{model}:predict")(predict)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http="httptools", access_log=False, log_level="warning", lifespan="off")
    _write(ready_file, listener.getsockname()[1])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listener]))


def _write(ready_file: Path, port: int) -> None:
    partial = ready_file.with_suffix(".partial")
    partial.write_text(json.dumps({"rest": f"127.0.0.1:{port}"}), "utf-8")
    partial.rename(ready_file)


if __name__ == "__main__":
    sys.exit(main())
