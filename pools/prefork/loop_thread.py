"""A thread that turns an event loop, for a pool that was given none."""

from __future__ import annotations

import threading

from pools.loop import EventLoop


class LoopThread:
    """Owns its loop. The thread is a daemon: a forgotten pool does not keep the program alive."""

    def __init__(self, *, name: str) -> None:
        self.loop = EventLoop()
        self._stopping = False
        self._turning = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-driver", daemon=True)

    def start(self) -> None:
        """Start turning; returns when the loop belongs to the thread."""
        self._thread.start()
        self._turning.wait()

    def stop(self) -> None:
        """End the thread and close the loop."""
        self._stopping = True
        if threading.current_thread() is self._thread:
            return  # the thread closes the loop when it gets back to it
        self.loop.wake()
        self._thread.join()

    def _run(self) -> None:
        self.loop.run_once(0)
        self._turning.set()
        while not self._stopping:
            self.loop.run_once()
        self.loop.run_once(0)  # calls that came in meanwhile
        self.loop.close()
