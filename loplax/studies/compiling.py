"""The programs of a study: traced at once, compiled in the background."""

import concurrent.futures
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from loplax.studies import runs, signals

_AT_ONCE = 4  # compilations; each takes memory, and some threads of its own


class Programs:
    """The programs of all methods of a study, each made once.

    Args:
      key: the study's key.
      data: arrays that all runs share.
      devices: the devices among which runs are divided.
      options: options of the compiler.
    """

    def __init__(
        self,
        key: jax.Array,
        data: Any,
        devices: Sequence[jax.Device],
        options: Mapping[str, Any],
    ) -> None:
        """Makes no program yet."""
        self._how = (devices, key, data)
        self._options = options
        self._traced: dict[tuple[str, int], runs.Program] = {}
        self._compiled: dict[tuple[str, int], concurrent.futures.Future] = {}
        self._shared: dict[Any, Any] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(
            min(_AT_ONCE, os.cpu_count() or 1)
        )

    def trace(self, each: runs.Runs, rows: int) -> runs.Program:
        """The program of a method for some rows as traced; it will be compiled."""
        place = (each.about.method, rows)
        if place not in self._traced:
            program = runs.trace(each, rows, *self._how)
            self._traced[place] = program
            self._compiled[place] = self._pool.submit(
                runs.compiled, program, self._options
            )
        return self._traced[place]

    def shapes(self, each: runs.Runs) -> runs.Program:
        """The program of a method for one run, which is not compiled."""
        return runs.trace(each, 1, *self._how)

    def ready(self, each: runs.Runs, rows: int) -> bool:
        """Whether a program that was traced is compiled."""
        return self._compiled[each.about.method, rows].done()

    def get(
        self, each: runs.Runs, rows: int, wish: signals.Wish
    ) -> tuple[runs.Program, Any]:
        """The compiled program, and the data on its devices.

        Raises:
          Stop: if it is wished before the program is compiled.
        """
        self.trace(each, rows)
        future = self._compiled[each.about.method, rows]
        while not future.done():
            wish.heed()
            concurrent.futures.wait([future], timeout=0.1)
        program = future.result()
        devices = program.sharding.mesh
        if devices not in self._shared:
            self._shared[devices] = runs.share(program, self._how[2])
        return program, self._shared[devices]

    def close(self) -> None:
        """Compiles nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
