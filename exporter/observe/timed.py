"""One timed thing in its forms: a call, a context manager, a decorator for four kinds of functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from exporter.observe.monitor import Monitor, Subject

P = ParamSpec("P")
R = TypeVar("R")


class Timed:
    """Times what is decorated with it, or the block of `with` or `async with` (one block at a time)."""

    __slots__ = ("_monitor", "_start", "_subject")

    def __init__(self, monitor: Monitor, subject: Subject) -> None:
        self._monitor = monitor
        self._subject = subject
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = self._monitor.now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor.record(self._subject, self._monitor.now() - self._start, error)

    async def __aenter__(self) -> None:
        self._start = self._monitor.now()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._monitor.record(self._subject, self._monitor.now() - self._start, error)

    async def run(self, fn: Callable[[], Any]) -> Any:
        """Call `fn`, await what it returns where it can be awaited, and give the result."""
        monitor = self._monitor
        start = monitor.now()
        try:
            result = fn()
            if hasattr(result, "__await__"):
                result = await result
        except BaseException as error:
            monitor.record(self._subject, monitor.now() - start, error)
            raise
        monitor.record(self._subject, monitor.now() - start, None)
        return result

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """The function, timed at each call; generators from their first step to their end."""
        if inspect.iscoroutinefunction(fn):
            wrapper: Any = self._around_coroutine(fn)
        elif inspect.isasyncgenfunction(fn):
            wrapper = self._around_async_generator(fn)
        elif inspect.isgeneratorfunction(fn):
            wrapper = self._around_generator(fn)
        else:
            wrapper = self._around_function(fn)
        return cast("Callable[P, R]", functools.wraps(fn)(wrapper))

    def _around_function(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            monitor = self._monitor
            start = monitor.now()
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                monitor.record(self._subject, monitor.now() - start, error)
                raise
            if hasattr(result, "__await__"):  # a function that returns a coroutine or a future
                return self._finish(result, start)
            monitor.record(self._subject, monitor.now() - start, None)
            return result

        return timed

    async def _finish(self, awaitable: Any, start: float) -> Any:
        monitor = self._monitor
        try:
            result = await awaitable
        except BaseException as error:
            monitor.record(self._subject, monitor.now() - start, error)
            raise
        monitor.record(self._subject, monitor.now() - start, None)
        return result

    def _around_coroutine(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> Any:
            monitor = self._monitor
            start = monitor.now()
            try:
                result = await fn(*args, **kwargs)
            except BaseException as error:
                monitor.record(self._subject, monitor.now() - start, error)
                raise
            monitor.record(self._subject, monitor.now() - start, None)
            return result

        return timed

    def _around_generator(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            monitor = self._monitor
            start = monitor.now()
            try:
                result = yield from fn(*args, **kwargs)
            except GeneratorExit:  # the reader had enough: no fault
                monitor.record(self._subject, monitor.now() - start, None)
                raise
            except BaseException as error:
                monitor.record(self._subject, monitor.now() - start, error)
                raise
            monitor.record(self._subject, monitor.now() - start, None)
            return result

        return timed

    def _around_async_generator(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            monitor = self._monitor
            start = monitor.now()
            inner = fn(*args, **kwargs)
            try:
                step = inner.asend(None)
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        break
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await inner.aclose()
                        raise
                    except BaseException as error:
                        step = inner.athrow(error)
                    else:
                        step = inner.asend(sent)
            except GeneratorExit:
                monitor.record(self._subject, monitor.now() - start, None)
                raise
            except BaseException as error:
                monitor.record(self._subject, monitor.now() - start, error)
                raise
            monitor.record(self._subject, monitor.now() - start, None)

        return timed
