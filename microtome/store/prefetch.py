"""Work done ahead by a thread of its own, a bounded number of items, in the same order."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class Shared(Generic[T]):
    """What both sides hold: items that are ready, room for more, and whether anyone still wants them.

    An entry of `ready` is a list of one item, the exception that ended them, or None for their end.
    """

    room: Semaphore
    ready: SimpleQueue[list[T] | BaseException | None] = field(default_factory=SimpleQueue)
    stopped: Event = field(default_factory=Event)

    def stop(self) -> None:
        """Tell the thread that nobody wants more."""
        self.stopped.set()
        self.room.release()


class Prefetch(Iterator[T]):
    """The items of an iterable, made by a thread at most `ahead` items before they are taken.

    What the iterable raises is raised here, after the items that came before. `close` stops the thread and waits until
    it has ended; so does the end of a `with` block. One that is forgotten stops its thread, too.
    """

    def __init__(self, items: Iterable[T], ahead: int):
        self.shared: Shared[T] = Shared(Semaphore(ahead))
        self.thread = Thread(target=work, args=(items, self.shared), name="prefetch", daemon=True)
        weakref.finalize(self, self.shared.stop)
        self.thread.start()

    def __next__(self) -> T:
        if self.shared.stopped.is_set():
            raise StopIteration
        entry = self.shared.ready.get()
        if isinstance(entry, list):
            self.shared.room.release()
            return entry[0]
        self.close()
        raise entry or StopIteration

    def close(self) -> None:
        """Stop, and wait until the thread has ended."""
        self.shared.stop()
        self.thread.join()

    def __enter__(self) -> "Prefetch[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def work(items: Iterable[T], shared: Shared[T]) -> None:
    """Make items while there is room for them. Who takes them is not held here, and so can be forgotten."""
    try:
        source = iter(items)
        while shared.room.acquire() and not shared.stopped.is_set():
            item = next(source, shared)
            if item is shared:
                break
            shared.ready.put([item])  # type: ignore[list-item]
            del item
        shared.ready.put(None)
    except BaseException as error:  # whatever it is, it belongs to whoever takes the items
        shared.ready.put(error)
