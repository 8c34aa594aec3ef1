"""Streams of GPUs that are not there: what is read before it is written, or freed too early.

Each stream knows how far it is sure that the others have come. A kernel may only read what is
certain to be written on its own stream, and memory that another stream than its own uses has to be
recorded there.
"""

from contextlib import contextmanager

import torch


class Event:
    def __init__(self, known):
        self.known = dict(known)


class Stream:
    def __init__(self, device, name):
        self.device, self.name, self.now = torch.device(device), name, 0
        self.known = {}

    def kernel(self):
        """Run one, and return what a reader must have waited for."""
        self.now += 1
        self.known[self] = self.now
        return self, self.now

    def has_waited_for(self, written):
        stream, time = written
        return self.known.get(stream, 0) >= time

    def record_event(self):
        return Event(self.known)

    def wait_event(self, event):
        for stream, time in event.known.items():
            self.known[stream] = max(self.known.get(stream, 0), time)

    def wait_stream(self, stream):
        self.wait_event(stream.record_event())

    def __repr__(self):
        return f"{self.name} of {self.device}"


class Gpus:
    """Takes the place of ``torch.cuda``'s streams; faults are listed in ``faults``."""

    def __init__(self, monkeypatch, count=2):
        self.made, self.faults, self.log = [], [], []
        self.current = {}
        for index in range(count):
            device = torch.device("cuda", index)
            self.current[device] = Stream(device, "default stream")
        monkeypatch.setattr(torch.cuda, "Stream", self.new_stream)
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current[device])

    def new_stream(self, device):
        self.made.append(Stream(device, f"stream {len(self.made)}"))
        return self.made[-1]

    @contextmanager
    def on(self, stream):
        before = self.current[stream.device]
        self.current[stream.device] = stream
        yield
        self.current[stream.device] = before

    def tensor(self, value, device):
        """A tensor whose last kernel was just launched on the device's current stream."""
        return self.result(value, torch.device(device))

    def result(self, value, device):
        made = value.detach().clone().as_subclass(SimulatedTensor)
        made.gpus, made.place = self, device
        made.home = made.written = None
        made.recorded, made.pinned = set(), False
        if device.type == "cuda":
            made.home = self.current[device]
            made.written = made.home.kernel()
        return made

    def read(self, tensor, stream):
        if tensor.written is None:
            return
        if not stream.has_waited_for(tensor.written):
            self.faults.append(f"{stream} reads what {tensor.written[0]} has not written yet")
        if stream is not tensor.home:
            tensor.used_by = {*getattr(tensor, "used_by", ()), stream}

    def check_recorded(self, tensor):
        """To be called when the last reference to the tensor goes."""
        for stream in getattr(tensor, "used_by", set()) - tensor.recorded:
            self.faults.append(f"{stream} may use memory of {tensor.home} that is free")


class SimulatedTensor(torch.Tensor):
    """A tensor that says that it is elsewhere; its values are on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self):
        return self.place

    def pin_memory(self):
        made = self.gpus.result(self.values(), self.place)
        made.pinned = True
        return made

    def values(self):
        return torch.Tensor.as_subclass(self, torch.Tensor)

    def to(self, device, non_blocking=False):
        if device == self.place:
            return self
        if self.place.type == "cpu" and non_blocking and not self.pinned:
            self.gpus.faults.append("a copy from pageable memory stops the host")
        if self.place.type == "cuda":  # on the streams of both devices, which wait for each other
            source = self.gpus.current[self.place]
            self.gpus.read(self, source)
            if device.type == "cuda":
                self.gpus.current[device].wait_stream(source)
        self.gpus.log.append(("copy", self.gpus.current.get(device)))
        return self.gpus.result(self.values(), device)

    def contiguous(self, memory_format):
        values = self.values()
        if values.is_contiguous(memory_format=memory_format):
            return self
        if self.place.type == "cuda":
            self.gpus.read(self, self.gpus.current[self.place])
            self.gpus.log.append(("layout", self.gpus.current[self.place]))
        return self.gpus.result(values.contiguous(memory_format=memory_format), self.place)

    def record_stream(self, stream):
        self.recorded.add(stream)
