"""What jobs share while a runner runs: clients, pools, models. Set up before, torn down after.

Each resource lives in an asyncio task of its own (a plain generator in a thread of its own), from
its setup to its teardown: cancel scopes and task groups inside it must end where they began, and
one that fails must not take the runner along. Nothing here knows the engine: whoever runs jobs
opens a :class:`ResourceSet` around them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar, copy_context
from typing import Any, Generic, Self, TypeVar, overload
from weakref import WeakSet

import anyio

from ..errors import InvalidOption, ResourceFailed, RunnerNotStarted
from .ending import error_record

T = TypeVar("T")

TEARDOWN_SECONDS = 5.0
"""How long each teardown may take before it is cancelled."""
CANCEL_SECONDS = 0.5
"""How long a cancelled setup or teardown is waited for before it is left to itself."""

log = logging.getLogger("asyncjobs")


class Resource(Generic[T]):
    """What ``@runner.resource`` makes of a function that yields once: ``get()`` gives the value."""

    def __init__(
        self, function: Callable[[], AsyncIterator[T]] | Callable[[], Iterator[T]]
    ) -> None:
        _check_function(function)
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.module = function.__module__
        self.__doc__ = function.__doc__
        self._function: Callable[[], Any] = function
        self._held: dict[ResourceSet, _Held[T]] = {}
        """The open ones, by who opened them: two runners of one process have two."""
        made.add(self)

    def get(self) -> T:
        """What the function yielded; in jobs, in their threads, and wherever the runner runs.

        Raises:
            RunnerNotStarted: no runner that has it is running.
            ResourceFailed: it has ended although the runner runs on.
            InvalidOption: several runners that have it are running, and this is outside a job.
        """
        # A copy: a thread may ask while the event loop opens or closes another one.
        held = list(self._held.values())
        if len(held) == 1:
            return held[0].get()
        if not held:
            raise RunnerNotStarted(
                f"resource {self.name!r} is not open: it is set up when a runner that has it "
                "starts, and torn down when that stops"
            )
        here = _here.get(None)
        if here is None or here not in self._held:
            raise InvalidOption(
                f"resource {self.name!r} is open in {len(held)} running runners; only inside a "
                "job is it clear which one is meant"
            )
        return self._held[here].get()

    def manager(self) -> AbstractAsyncContextManager[T]:
        """Setup and teardown as a context manager, new at each call."""
        if inspect.isasyncgenfunction(self._function):
            return contextlib.asynccontextmanager(self._function)()
        return _in_thread(contextlib.contextmanager(self._function)(), self.name)

    def __repr__(self) -> str:
        return f"<Resource {self.name!r}>"


made: WeakSet[Resource[Any]] = WeakSet()
"""Every one of this process: where a worker finds those that it sets up for itself."""


class ResourceRegistrar:
    """What ``Runner`` and ``Tasks`` share: the ``resource`` decorator."""

    def __init__(self) -> None:
        super().__init__()
        self._resources: list[Resource[Any]] = []

    @overload
    def resource(self, function: Callable[[], AsyncIterator[T]], /) -> Resource[T]: ...

    @overload
    def resource(self, function: Callable[[], Iterator[T]], /) -> Resource[T]: ...

    def resource(self, function: Any, /) -> Any:
        """Make a resource of a function that yields once: what stands before is its setup.

        Set up when the runner starts, before any job runs, in the order of declaration, so that one
        may use those declared before it. Torn down in reverse order once the jobs have ended.
        An async generator runs in one asyncio task, a plain one in one thread.

        Raises:
            InvalidOption: it does not yield, or takes arguments; or the runner is running.
        """
        resource = Resource[Any](function)
        self._add_resource(resource)
        return resource

    def _add_resource(self, resource: Resource[Any]) -> None:
        if resource not in self._resources:
            self._resources.append(resource)


class ResourceSet:
    """Several resources, opened and closed together: ``async with ResourceSet(resources):``."""

    def __init__(
        self, resources: Iterable[Resource[Any]], *, teardown_seconds: float = TEARDOWN_SECONDS
    ) -> None:
        self.resources = tuple(resources)
        self._teardown_seconds = teardown_seconds
        self._open: list[_Held[Any]] = []

    async def open(self) -> None:
        """Set them all up, in order. What is started from this context later, finds them.

        Raises:
            ResourceFailed: a setup raised; the earlier ones are torn down again.
        """
        _here.set(self)
        try:
            for resource in self.resources:
                held = _Held(resource)
                self._open.append(held)
                await held.set_up()
                resource._held[self] = held
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise

    async def close(self) -> None:
        """Tear down what is open, in reverse order. Raises nothing: what fails is logged."""
        while self._open:
            held = self._open.pop()
            held.resource._held.pop(self, None)
            await held.tear_down(self._teardown_seconds)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()


_here: ContextVar[ResourceSet] = ContextVar("asyncjobs_resources")


class _Held(Generic[T]):
    """One resource from its setup to its teardown."""

    _value: T
    _error: BaseException | None = None
    _lost = False
    """True once it has ended without being asked to."""

    def __init__(self, resource: Resource[T]) -> None:
        self.resource = resource
        self._entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        self._task = asyncio.create_task(self._hold(), name=f"asyncjobs-{resource.name}")

    async def _hold(self) -> None:
        try:
            async with self.resource.manager() as self._value:
                self._entered.set_result(None)
                await self._leave.wait()
        except BaseException as error:
            self._error = error
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._tell()

    def _tell(self) -> None:
        if not self._entered.done():
            self._entered.set_result(None)
        elif not self._leave.is_set():
            self._lost = True
            log.error(
                "resource %r has ended although the runner runs on; jobs that get it fail",
                self.resource.name, exc_info=self._error,
            )  # fmt: skip

    async def set_up(self) -> None:
        await asyncio.wait([self._entered])
        if self._error is not None:
            raise self._failed("could not be set up")

    def get(self) -> T:
        if self._lost:
            raise self._failed("has ended although the runner runs on")
        return self._value

    def _failed(self, how: str) -> ResourceFailed:
        why = "" if self._error is None else f": {error_record(self._error).summary}"
        failed = ResourceFailed(f"resource {self.resource.name!r} {how}{why}")
        failed.__cause__ = self._error
        return failed

    async def tear_down(self, seconds: float) -> None:
        if self._task.done():
            return  # what it raised is known
        name = self.resource.name
        if self._entered.done():
            self._leave.set()
            await asyncio.wait([self._task], timeout=seconds)
        if not self._task.done():
            log.error("resource %r does not end within its time; it is cancelled", name)
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CANCEL_SECONDS)
        if not self._task.done():
            log.error("resource %r does not end; it is left behind", name)
        elif self._error is not None and not isinstance(self._error, asyncio.CancelledError):
            log.error("the teardown of resource %r failed", name, exc_info=self._error)


@contextlib.asynccontextmanager
async def _in_thread(manager: AbstractContextManager[T], name: str) -> AsyncIterator[T]:
    """A plain context manager, entered and left in one daemon thread, so that neither blocks us."""
    loop = asyncio.get_running_loop()
    entered: asyncio.Future[T] = loop.create_future()
    left: asyncio.Future[BaseException | None] = loop.create_future()
    leave = threading.Event()

    def tell(future: asyncio.Future[Any], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_resolve, future, value)

    def work() -> None:
        error: BaseException | None = None
        try:
            with manager as value:
                tell(entered, value)
                leave.wait()
        except BaseException as raised:
            error = raised
        tell(left, error)

    threading.Thread(
        target=copy_context().run, args=(work,), name=f"asyncjobs-{name}", daemon=True
    ).start()
    try:
        ways: list[asyncio.Future[Any]] = [entered, left]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if entered.done():
            yield entered.result()
    finally:
        leave.set()  # also when the setup was given up: it is torn down as soon as it is done
        error = await left
        if error is not None:
            raise error


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _check_function(function: Any) -> None:
    name = getattr(function, "__qualname__", type(function).__name__)
    if not (inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)):
        raise InvalidOption(f"{name} is no resource: that is a function that yields its value once")
    empty = inspect.Parameter.empty
    needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is empty]
    if needed:
        raise InvalidOption(f"resource {name} takes {', '.join(needed)}; nobody would give it that")
