"""The run on a real GPU: build, correctness, figures beside their targets, parity, races.

``python3 -m benchmarks.gpu --output DIR``; what it answers and what to do next: ``README.md`` here.

``plan`` says which parts there are and how long each may take; ``run`` starts each in a process of
its own under ``guard``; a part is a module with ``run(job) -> Iterator[dict]`` whose lines ``part``
appends to ``DIR/results.jsonl``; ``record`` and ``table`` are made from these lines alone.
"""
