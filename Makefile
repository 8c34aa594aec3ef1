# `make demo` and `make test` work on a fresh machine with Python >= 3.10, a C++17 compiler and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BENCH  := $(VENV)-bench
LIBRARIES := $(VENV)-integrations
MINUTES ?= 45
GPU_OUTPUT ?= build/gpu
CASES ?= 5000
NATIVE := $(wildcard csrc/*.cpp csrc/*/*)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-arm test-integrations fuzz lint format docs bench bench-kernels gpu gpu-rehearsal dist clean

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP) ## create .venv with the package and its development dependencies, pinned

$(STAMP): pyproject.toml setup.py constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt pip setuptools wheel pybind11
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## run the main job on real images: learning curves, table, results in demo/
	$(BIN)/dynal-fast demo --output demo

test: $(STAMP) ## run the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

test-arm: $(STAMP) ## the tests of the compiled kernels on an emulated Arm CPU, all of them
	$(BIN)/python -m pytest -n 0 -p tests.arm.plugin \
	  $$($(BIN)/python -c 'from tests.arm.emulated import files; print(*files())')

test-integrations: $(LIBRARIES)/.installed ## the tests of dynal_fast.integrations, against the libraries themselves
	$(LIBRARIES)/bin/python -m pytest -n auto --dist worksteal tests/integrations dynal_fast/integrations tests/test_examples.py

# An environment of its own for the libraries, which finds torch and all else in .venv.
$(LIBRARIES)/.installed: $(STAMP) constraints-integrations.txt
	$(BIN)/python -m venv $(LIBRARIES)
	$(LIBRARIES)/bin/python -m pip install -q --no-deps -r constraints-integrations.txt
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> "$$($(LIBRARIES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/shared.pth"
	touch $@

fuzz: $(STAMP) ## the fuzz tests with many more cases: make fuzz CASES=20000
	DYNAL_FAST_FUZZ=$(CASES) $(BIN)/python -m pytest -n auto tests/test_fuzz_*.py

lint: $(STAMP) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.inl' 'csrc/*.cu' 'csrc/*.cuh' 'tests/*.h' 'tests/*.cpp' 'tests/arm/*.cpp')
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.inl' 'csrc/*.cu' 'csrc/*.cuh' 'tests/*.h' 'tests/*.cpp' 'tests/arm/*.cpp')

docs: $(STAMP) ## build the documentation in build/docs, warnings as errors, without network
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "open build/docs/index.html"

bench: $(BENCH)/.installed ## the full benchmark beside other libraries: record, tables of the pages
	$(BENCH)/bin/dynal-fast bench --full --minutes $(MINUTES) -o benchmarks/results
	$(BENCH)/bin/python -m benchmarks.pages

# An environment of its own: the other libraries want other versions than the tests.
$(BENCH)/.installed: pyproject.toml setup.py constraints.txt $(NATIVE)
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	grep -v '^scikit-learn' constraints.txt > $(BENCH)/constraints.txt
	$(BENCH)/bin/python -m pip install -q -c $(BENCH)/constraints.txt -e '.[bench,competitors]'
	$(BENCH)/bin/python -m pip install -q --no-deps anomalib
	touch $@

bench-kernels: $(STAMP) ## the pytest-benchmark suites: every backend, verified before it is timed
	$(BIN)/python -m pytest benchmarks --benchmark-only -n 0

gpu: ## on a machine with a GPU, its own torch and triton: gate, figures, parity, races, a record
	$(PYTHON) -m benchmarks.gpu --output $(GPU_OUTPUT)

gpu-rehearsal: $(STAMP) ## every part of that run on the CPU, small
	$(BIN)/python -m benchmarks.gpu --rehearse --output build/gpu-rehearsal

# The tag is that of this machine's C library; the wheels of a release come from the workflow's
# older images.
dist: $(STAMP) ## build the sdist and a wheel that installs without a compiler: dist/
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir build/wheel
	mkdir -p dist && mv build/wheel/*.tar.gz dist
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir dist build/wheel/*.whl

clean: ## remove what was built
	rm -rf $(VENV) $(BENCH) $(LIBRARIES) build dist *.egg-info dynal_fast/_C*.so dynal_fast/_cuda*.so
