# setup   the environment in .venv            bench   the example agent answers the callers in recordings/
# test    everything CI runs                  check   lint, types, layers
# schema  the JSON schemas for editors        readme  what the README shows, from the program
# lock    pin what setup installs

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup bench test check schema readme lock clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voicectl needs Python 3.11 or later, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 setup")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The venv module is incomplete. On Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[local,dev]'
	@touch $(READY)

bench: setup
	$(BIN)/voicectl bench coffee

test: setup check
	$(BIN)/voicectl models pull moonshine-tiny-en qwen2.5-coder-0.5b smollm2-135m piper-joe
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

schema: setup
	for kind in agents profile caller; do $(BIN)/voicectl schema $$kind > .schema/$$kind.json; done

lock: setup
	$(BIN)/python -m pip freeze --exclude-editable | grep -v '^-' > constraints.txt

readme: setup
	$(BIN)/python tools/readme.py --write

clean:
	rm -rf $(VENV)
