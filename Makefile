# `make demo` and `make test` work on a fresh machine with Python >= 3.10, a C++17 compiler and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NATIVE := $(wildcard csrc/*.cpp csrc/*.h csrc/*.inl csrc/isa/*.cpp)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format bench dist clean

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
	$(BIN)/python -m pytest -n auto

lint: $(STAMP) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.inl' 'csrc/*.cu' 'csrc/*.cuh')
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.inl' 'csrc/*.cu' 'csrc/*.cuh')

bench: $(STAMP) ## run the benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-only -n 0

dist: $(STAMP) ## build the sdist and the wheel
	$(BIN)/python -m build

clean: ## remove what was built
	rm -rf $(VENV) build dist *.egg-info dynal_fast/_C*.so
