"""The rehearsal without a GPU: what is planted, what must be found, what it cannot cover."""

from typing import Any

# Factor on every time limit, for a machine with few, busy cores.
PATIENCE = 10.0
ENVIRONMENT = {
    "TRITON_INTERPRET": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
PLANTS = ["head-whole=fault", "dense-long=hang", "update-long=die"]
SPOILED = range(16, 32)  # rows that the planted fault spoils
LEFT_OUT = (
    "The rehearsal cannot cover:",
    "- CUDA graphs: a figure is timed by plain calls here",
    "- torch.compile on CUDA: the plain function stands in",
    "- the kernel in CUDA C++ (the tests run its source on a model of the hardware) and the split"
    " rows in Triton, which are for Hopper",
    "- building: the extensions that are there are loaded",
    "- Triton's compiler, its cache and so the warm-up's use (kernels are interpreted)",
    "- compute-sanitizer: its case runs without it",
    "- a device that does not answer, a process that cannot be killed",
    "- every time, every share of a ceiling, memory on the device",
)


def problems(record: dict[str, Any]) -> list[str]:
    """Where the run missed what was planted, or did not go on after it."""
    kernels, parts, found = record["kernels"], record["parts"], []

    def expect(what: str, is_so: bool) -> None:
        if not is_so:
            found.append(f"the rehearsal: {what}")

    wanted = {"fault": "wrong", "hang": "hung", "die": "died"}
    planted = dict(plant.split("=") for plant in PLANTS)
    for name, kernel in kernels.items():
        want = wanted[planted[name]] if name in planted else None
        right = kernel["status"] == want if want else kernel["status"] in ("agrees", "not here")
        expect(f"kernel {name} is {kernel['status']}, should be {want or 'right'}", right)
    if "gate" in parts:
        expect("no kernel was checked", bool(kernels))
        spoiled = kernels.get("head-whole", {}).get("wrong", [])
        expect(
            f"the map does not show rows {SPOILED.start} to {SPOILED.stop - 1}",
            any(is_where_it_was_planted(check) for check in spoiled),
        )
    failing = {"hangs": "stopped after", "dies": "killed by SIGKILL"}
    for name, part in parts.items():
        want = failing.get(name, "done")
        expect(f"part {name}: {part['outcome']}", part["outcome"].startswith(want))
    said = {line.get("said") for line in record["other"]}
    if "dies" in parts:
        expect("what a part said before it died is lost", "before it dies" in said)
    for name, figure in record["figures"].items():
        expect(f"figure {name}: {figure.get('failed')}", "failed" not in figure)
    if {"gate", "head"} <= set(parts):
        instead = record["figures"].get("head in Triton C=100, all rows at once", {})
        expect("a refused kernel is not replaced", instead.get("kernel") == ["update_long_rows"])
    for name, race in record["races"].items():
        expect(f"race in {name}", not race.get("differing"))
    if "parity" in parts:
        passed = record["parity"].get("counts", {}).get("passed")
        expect("no test of parity passed", bool(passed))
    return found


def is_where_it_was_planted(check: dict[str, Any]) -> bool:
    """Whether the map of a wrong tensor shows exactly the spoiled rows."""
    height = check["block"][0]
    shown = {i * height for i, row in enumerate(check["map"]) if row.strip(".")}
    return shown == {row for row in SPOILED if row % height == 0}
