PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check docs format clean

demo: $(READY)
	$(BIN)/tunewright demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/python tools/reference.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A machine without an NVIDIA driver gets torch's CPU build where the index offers one.
$(READY): pyproject.toml tools/setup.sh
	PYTHON=$(PYTHON) VENV=$(VENV) bash tools/setup.sh
	touch $@

clean:
	rm -rf $(VENV) runs store
