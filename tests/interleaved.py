"""Triton's interpreter with the programs of a launch in turns, as kernels that wait need them.

By itself it runs each program to its end before the next one starts. Here every program is a
thread, only one of them runs at a time, and a turn ends with each atomic operation.
"""

import inspect
import math
import random
import threading

from triton.runtime import interpreter


class Turns(interpreter.GridExecutor):
    """Runs a kernel's programs in turns, drawn anew for each round."""

    def __init__(self, fn, *rest, **options):
        super().__init__(fn, *rest, **options)
        self.fn = _Programs(fn)


class _Programs:
    """Stands for the function of a kernel; runs when the last program has been called."""

    def __init__(self, fn):
        self.fn, self.calls = fn, []
        self.__globals__, self.__name__ = fn.__globals__, fn.__name__
        self.__signature__ = inspect.signature(fn)

    def __call__(self, **arguments):
        builder = interpreter.interpreter_builder
        self.calls.append((builder.grid_idx, arguments))
        if len(self.calls) == math.prod(builder.grid_dim):
            self.run(builder)

    def run(self, builder):
        back, turns, errors, ended = threading.Semaphore(0), {}, [], set()
        atomic = builder.create_atomic_rmw

        def program(place, arguments):
            turns[place].acquire()
            try:
                self.fn(**arguments)
            except BaseException as error:
                errors.append(error)
            ended.add(place)
            back.release()

        def create_atomic_rmw(*operands):
            result, place = atomic(*operands), builder.grid_idx
            back.release()
            turns[place].acquire()
            return result

        for place, arguments in self.calls:
            turns[place] = threading.Semaphore(0)
            threading.Thread(target=program, args=(place, arguments), daemon=True).start()
        order, draw = list(turns), random.Random(0)
        builder.create_atomic_rmw = create_atomic_rmw
        try:
            while order and not errors:
                draw.shuffle(order)
                for place in order:
                    builder.set_grid_idx(*place)
                    turns[place].release()
                    back.acquire()
                order = [place for place in order if place not in ended]
        finally:
            del builder.create_atomic_rmw
        if errors:
            raise errors[0]
