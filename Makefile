# Everything sets itself up in .venv; nothing needs root. `make demo` and `make test` are all a
# newcomer needs.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
TORCH := torch==2.13.0

.PHONY: demo test quick fuzz kills lint bench clean

demo: .venv/ready
	$(BIN)/synth demo $(DEMO)

# Three processes for two cores: many tests wait, for Ray to start or for a deadline to pass.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 --dist loadfile

quick: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" --hypothesis-profile=quick -n 2 --dist loadfile

# Reads files made to harm, for a few minutes, and prints how many of each kind.
fuzz: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/fuzz --hypothesis-profile=fuzz

# Kills workers, decoders, nodes and drivers at random, SEEDS times each, and prints what it counted.
SEEDS ?= 5
kills: .venv/ready
	PYTHONPATH=tests $(BIN)/python -m kill_suite --seeds $(SEEDS)

lint: .venv/ready
	$(BIN)/pre-commit run --all-files

bench: .venv/ready
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv $(DEMO)

# torch comes first, so that no package chooses another build of it.
.venv/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
