"""The table: every figure beside its target, in at most 10,000 characters."""

from typing import Any

from benchmarks.gpu import lines, targets
from benchmarks.gpu.gate.drawing import drawing

LIMIT = 10_000
MAPS = 2500  # characters of the maps of wrong kernels


def of(record: dict[str, Any]) -> str:
    """The table, the most telling lines first, so that the end of a log holds all of it."""
    blocks = [
        _head(record),
        _parts(record),
        _gate(record),
        _targets(record),
        _figures(record),
        _checks(record),
    ]
    text = "\n".join(part for block in blocks for part in block)
    if len(text) <= LIMIT:
        return text
    cut = "\n... the rest is in record.json"
    return text[: LIMIT - len(cut)].rpartition("\n")[0] + cut


def line(found: lines.Line) -> str:
    """One line of the results in words, or nothing."""
    kind = found["kind"]
    if kind == "figure":
        return _figure(found["name"], found)
    if kind == "kernel" and found["status"] not in ("agrees", "not here"):
        return f"kernel {found['kernel']}: {found['status']}"
    if kind == "race":
        return f"race {found['name']}: {_race(found)}"
    if kind == "sanitizer" and found.get("outcome") not in ("clean", "unasked"):
        return f"sanitizer {found.get('case', '')}: {found.get('outcome', found)}"
    if kind == "warm" and (found["outcome"] != "done" or found.get("failed")):
        return f"warm-up {found['share']}: {found['outcome']} {found.get('failed', '')}"[:300]
    if kind in ("ceilings", "built"):
        return str(found.get("ceilings") or found.get("extensions"))
    return ""


def _head(record: dict[str, Any]) -> list[str]:
    call = record["calls"][-1] if record["calls"] else {}
    of = record["environment"]
    names = ("device", "driver", "torch", "cuda", "triton", "nvcc")
    versions = (
        ", ".join(f"{name} {of.get(name)}" for name in names) if of else "nothing known of it"
    )
    ceilings = record["ceilings"]
    rates = ""
    if ceilings:
        rates = (
            f"ceilings: copy {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, matrix products "
            f"{ceilings['bf16_flops'] / 1e12:.0f} (bf16) and "
            f"{ceilings['fp32_flops'] / 1e12:.0f} (fp32) TFLOP/s"
        )
    return [f"GPU run of {call.get('date')}, commit {call.get('commit')}", versions, rates]


def _parts(record: dict[str, Any]) -> list[str]:
    parts = [
        f"{name} {part['outcome']}" + (f" {part['seconds']:.0f} s" if "seconds" in part else "")
        for name, part in record["parts"].items()
    ]
    late = {part: names for part, names in record["compiled_late"].items() if names}
    return ["parts: " + "; ".join(parts)] + (
        [f"compiled after the warm-up: {late}"[:400]] if late else []
    )


def _gate(record: dict[str, Any]) -> list[str]:
    kernels = record["kernels"]
    if not kernels:
        return ["gate: not run"]
    right = [kernel for kernel in kernels.values() if kernel["status"] == "agrees"]
    worst = max((kernel["error"] for kernel in right), default=0.0)
    found = [f"gate: {len(right)} of {len(kernels)} kernels agree, to {worst:.1e} at worst"]
    maps: list[str] = []
    for name, kernel in kernels.items():
        if kernel["status"] in ("agrees", "not here"):
            continue
        found.append(f"  {name}: {kernel['status'].upper()}")
        for check in kernel.get("wrong", [])[:2]:
            maps += [f"    {text}" for text in drawing(check)]
        if text := kernel.get("output", "").strip():
            maps.append(f"    {text.splitlines()[-1][:200]}")
    text = "\n".join(maps)
    return found + ([text[:MAPS]] if maps else [])


def _targets(record: dict[str, Any]) -> list[str]:
    figures = record["figures"]
    return ["targets:"] + [
        "  " + targets.words(target, targets.value(target, figures)) for target in targets.TARGETS
    ]


def _figures(record: dict[str, Any]) -> list[str]:
    head = f"{'figure':<52}{'ms':>9} {'+-':>4} {'ceiling':>7}  error, kernel"
    return [head, *(_figure(name, figure) for name, figure in record["figures"].items())]


def _figure(name: str, figure: dict[str, Any]) -> str:
    if "ms" not in figure:
        said = figure.get("failed") or figure.get("left_out") or "no time"
        return f"{name:<52} {'FAILED' if 'failed' in figure else 'left out'}: {said[:100]}"
    share = f"{figure['of_ceiling']:.0%}" if "of_ceiling" in figure else "-"
    error = figure.get("error") or {}
    said = f"{error['error']:.1e}" if isinstance(error.get("error"), float) else "-"
    if error.get("wrong"):
        said += f", {error['wrong']} wrong"
    if "failed" in error:
        said = f"NOT CHECKED {error['failed'][:60]}"
    extra = ""
    if "ratio" in figure:
        extra = f"; {figure['ratio']:.4f} +- {2 * figure['ratio_error']:.4f} of the bare passes"
    if "us_per_pick" in figure:
        extra = f"; block {figure['decide_ms']:.3f} ms, {figure['us_per_pick']:.2f} us a pick"
    return (
        f"{name[:51]:<52}{figure['ms']:>9.4g} {figure['spread']:>4.0%} {share:>7}  "
        f"{said}, {' '.join(figure['kernel'])}{extra}"
    )


def _checks(record: dict[str, Any]) -> list[str]:
    counts = record["parity"].get("counts")
    parity = ", ".join(f"{n} {how}" for how, n in counts.items()) if counts else "not run"
    if counts and not record["parity"].get("finished"):
        parity += ", and was stopped"
    found = [f"parity: {parity}"]
    found += [f"  FAILED {test}" for test in list(record["failed_tests"])[:15]]
    races = record["races"]
    found.append("races: " + ("; ".join(f"{n}: {_race(r)}" for n, r in races.items()) or "not run"))
    cases = record["sanitizer"]
    clean = sum(case.get("outcome") == "clean" for case in cases.values())
    found.append(f"sanitizer: {clean} of {len(cases)} cases clean")
    for name, case in cases.items():
        if case.get("outcome") not in ("clean", "unasked"):
            found.append(f"  {name}: {case.get('outcome') or case.get('failed_to_run')}")
    return found


def _race(race: dict[str, Any]) -> str:
    if "left_out" in race:
        return f"left out, {race['left_out']}"
    return f"{race['differing']} of {race['repeats']} differ"
