# The words of dev.py, for those who have make.

PYTHON ?= python3

.PHONY: setup bench bench-peers test check schema readme lock clean

setup bench test check schema readme lock:
	@$(PYTHON) dev.py $@

bench-peers:  # make bench-peers OPTIONS="--reps 1 --frameworks voicectl"
	@$(PYTHON) dev.py $@ $(OPTIONS)

clean:
	rm -rf .venv
