"""The run on a real GPU: build, correctness, figures beside their targets, parity, races.

``python3 -m benchmarks.gpu --output DIR``; what it answers and what to do next: ``README.md`` here.

``plan`` lists the parts and how long each may take. ``run`` starts each in a process of its own,
under ``guard``. A part is a module with ``run(job) -> Iterator[dict]``; ``part`` appends what it
yields to ``DIR/results.jsonl``. ``record`` and ``table`` are made from these lines alone.
"""
