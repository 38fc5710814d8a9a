"""Ending of background tasks."""

from __future__ import annotations

import asyncio
from typing import Any


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` and return when it has ended; an error that it ended with is raised here.

    Unlike awaiting the task with CancelledError suppressed, this does not swallow the cancellation of the caller.
    """
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
