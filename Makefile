# make demo   set everything up and run one whole cycle on real parts
# make test   set everything up and run the tests (slow suites sampled)
# Everything may be run again at any time; a second run is quick.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORKERS ?= 2
STAMP  := $(VENV)/.installed
export PYTHONSAFEPATH := 1

.PHONY: setup system test lint types check-long demo clean

setup: $(STAMP) system

$(STAMP): pyproject.toml constraints.txt requirements-data.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --requirement requirements-data.txt
	touch $@

# Chromium and bubblewrap come from the system's packages; without the right to install them, say how.
# The headless shell is quicker but not packaged everywhere, and not needed.
system:
	@command -v chromium >/dev/null && command -v bwrap >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium bubblewrap >/dev/null; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium-headless-shell >/dev/null || true; \
	else \
		echo "Chromium and bubblewrap are missing; run: sudo apt-get install -y chromium bubblewrap"; exit 1; \
	fi

# One file stays in one process; one thread each, or the processes' threads would wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Types are checked against what ships: a copy installed without the editable import hook.
types: $(STAMP)
	rm -rf .typecheck
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .typecheck .
	MYPYPATH=.typecheck $(BIN)/mypy -p tutelage

check-long: setup
	$(BIN)/python benchmarks/check_long.py

demo: setup
	$(BIN)/tutelage doctor
	$(BIN)/tutelage run --config configs/demo.toml
	$(BIN)/tutelage report --config configs/demo.toml

clean:
	rm -rf $(VENV) .typecheck build
