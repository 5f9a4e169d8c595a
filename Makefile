# The words of dev.py, for those who have make.

PYTHON ?= python3

.PHONY: setup bench test check schema readme lock clean

setup bench test check schema readme lock:
	@$(PYTHON) dev.py $@

clean:
	rm -rf .venv
