"""Call a function on many items in child processes that may crash, without dying with them.

A decoder that meets a damaged file can take its process along. Each child works on one item at a
time, so that a dead child says which item killed it; that item gets one more try in a fresh child,
for the case that the system, not the item, was to blame. Items and replies travel as JSON lines;
the caller's own script is never imported again, so it needs no `__main__` guard.
"""

import contextlib
import ctypes
import importlib
import json
import os
import select
import selectors
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import SeamlineError

Reply = dict[str, Any]
RAISED = "raised"  # of a reply: the exception that the child ends with
PR_SET_PDEATHSIG = 1  # of Linux


@dataclass(frozen=True, slots=True)
class Crash:
    """What stands in for the reply of an item that killed every child that tried it.

    Attributes:
        exit_code: Of the last child; minus the signal's number if a signal ended it.
        raised: The exception that it ended with, if it could say so.
    """

    exit_code: int
    raised: str = ""

    @property
    def cause(self) -> str:
        """Return how the child ended, in words."""
        if self.raised:
            return self.raised
        if self.exit_code >= 0:
            return f"exit status {self.exit_code}"
        return str(signal.strsignal(-self.exit_code)).lower()


def map_in_children(
    function: Callable[..., Reply],
    items: Sequence[dict[str, Any]],
    num_workers: int,
    max_tries: int = 2,
) -> Generator[tuple[int, Reply | Crash], None, None]:
    """Yield `(index of an item, its reply or Crash)`, in the order in which they finish.

    Args:
        function: Called with an item as keyword arguments, in a child that finds it again by its
            module and name; it must not be in `__main__`.
        items: Keyword arguments that JSON can hold.
        num_workers: Children at a time, >= 1.
        max_tries: Children that one item may kill. An item whose child died by SIGALRM, which is
            how a function sets itself a deadline, is not tried again.

    Raises:
        SeamlineError: A child ended before it was ready for its first item.
    """
    waiting = deque((index, 1) for index in range(len(items)))
    crew = _Crew(function)
    try:
        for _ in range(min(num_workers, len(items))):
            crew.start()
        while waiting or crew.is_busy:
            for child, reply in crew.replies():
                if child.task is not None:
                    index, tries = child.task
                    if _deserves_another_try(reply, tries, max_tries):
                        waiting.append((index, tries + 1))
                    else:
                        yield index, reply
                child.task = None
                if waiting and isinstance(reply, Crash):
                    crew.start()  # takes its first item when it says that it is ready
                elif waiting:
                    child.task = waiting.popleft()
                    child.send(items[child.task[0]])
    finally:
        crew.close()


def _deserves_another_try(reply: Reply | Crash, tries: int, max_tries: int) -> bool:
    return isinstance(reply, Crash) and tries < max_tries and reply.exit_code != -signal.SIGALRM


class ChildProcess:
    """One child process, and the item (index, tries) that it works on.

    Args:
        function: As `map_in_children` takes it.
        pass_fds: Open files that the child shall have, under the same numbers.
    """

    def __init__(self, function: Callable[..., Reply], pass_fds: Sequence[int] = ()) -> None:
        assert function.__module__ != "__main__", "children cannot import from the caller's script"
        function_name = f"{function.__module__}:{function.__qualname__}"
        self.task: tuple[int, int] | None = None
        self.is_ready = False
        search_path = os.pathsep.join(folder for folder in sys.path if folder)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import serve; serve({function_name!r})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": search_path},
            pass_fds=pass_fds,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests, self.replies = self.process.stdin, self.process.stdout

    def send(self, item: dict[str, Any]) -> None:
        """Give the child its next item; if it is dead, reading its reply will tell."""
        with contextlib.suppress(BrokenPipeError):
            self.requests.write(json.dumps(item).encode() + b"\n")
            self.requests.flush()

    def has_replied(self, seconds: float) -> bool:
        """Wait so long for a reply or the child's end; return whether `receive` has it."""
        looker = select.poll()  # unlike select, for any number of open files
        looker.register(self.replies, select.POLLIN)
        return bool(looker.poll(1000 * seconds))

    def receive(self) -> Reply | Crash:
        """Read the reply, or learn that the child is dead."""
        line = self.replies.readline()
        reply: Reply = json.loads(line) if line.endswith(b"\n") else {}
        if line.endswith(b"\n") and RAISED not in reply:
            self.is_ready = True
            return reply
        try:
            exit_code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            exit_code = self.process.wait()
        return Crash(exit_code, reply.get(RAISED, ""))

    def close(self) -> None:
        """End the child, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        self.replies.close()
        with contextlib.suppress(BrokenPipeError):  # an item that was never read
            self.requests.close()


class _Crew:
    """The living children."""

    def __init__(self, function: Callable[..., Reply]) -> None:
        self.function = function
        self.selector = selectors.DefaultSelector()
        self.children: set[ChildProcess] = set()

    @property
    def is_busy(self) -> bool:
        return any(child.task is not None for child in self.children)

    def start(self) -> None:
        child = ChildProcess(self.function)
        self.children.add(child)
        self.selector.register(child.replies, selectors.EVENT_READ, child)

    def replies(self) -> Iterator[tuple[ChildProcess, Reply | Crash]]:
        """Wait for some children and yield what they said; the first thing said is "ready"."""
        for key, _ in self.selector.select():
            child: ChildProcess = key.data
            reply = child.receive()
            if isinstance(reply, Crash):
                self.selector.unregister(child.replies)
                self.children.remove(child)
                child.close()
                if not child.is_ready:
                    raise SeamlineError(
                        f"a worker process must start, but it ended with {reply.cause} before its "
                        "first item (what it printed says why)"
                    )
            yield child, reply

    def close(self) -> None:
        for child in self.children:
            child.close()
        self.selector.close()


def serve(function_name: str) -> None:
    """Run in a child: answer items with replies until the caller closes the pipe or is gone."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who ends its children
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # what libraries print must not get between the replies
        module, _, name = function_name.partition(":")
        function = getattr(importlib.import_module(module), name)
        try:
            print("{}", file=replies, flush=True)
            for line in iter(sys.stdin.readline, ""):
                print(json.dumps(function(**json.loads(line))), file=replies, flush=True)
        except BrokenPipeError:
            os._exit(1)  # nobody is left to read; a second failure at exit would only print noise
        except Exception as err:
            print(json.dumps({RAISED: f"{type(err).__name__}: {err}"}), file=replies, flush=True)
            raise


def _die_with_parent() -> None:
    """Let the system kill this process when its parent is gone, whatever it is doing."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
