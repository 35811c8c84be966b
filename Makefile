PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow test-all faults check docs site format bench gpu-check kquants clean

# `make demo TEXT=my-novel.txt` takes a text of your own.
demo: $(READY)
	$(BIN)/tunewright demo $(if $(TEXT),"$(TEXT)")

# Two workers with a thread each: torch's own threads would only be in each other's way.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# Both in one go: no worker waits for the other twice.
test-all: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not network and not faults" -n 2 --dist loadfile --no-loadscope-reorder

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults -n 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright
	$(BIN)/python tools/reference.py --check
	$(BIN)/python tools/safety.py

docs: $(READY)
	$(BIN)/python tools/reference.py

site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# About half an hour on two cores, once LLaMA-Factory is installed. All shapes and sets: see docs/performance.md.
bench: $(READY)
	$(BIN)/python benchmarks/train_speed.py --sets A0,A100 --steps 4 --rounds 2 --docs docs/performance.md

gpu-check: $(READY)
	$(BIN)/python -m pytest -m gpu

# What the tests of K-quants need; they are skipped without it.
kquants: $(READY)
	VENV=$(VENV) bash tools/kquants.sh

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A machine without an NVIDIA driver gets torch's CPU build where the index offers one.
$(READY): pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) bash tools/setup.sh
	touch $@

clean:
	rm -rf $(VENV) runs store
