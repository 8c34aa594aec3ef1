import importlib.util

for package in ("torch", "triton"):
    if importlib.util.find_spec(package) is None:
        raise SystemExit(f"This needs the machine's own torch and triton; {package} is missing.")

from benchmarks.gpu.run import main  # noqa: E402

main()
