# What a newcomer and a build machine need. `make` alone says what there is.
# Needs git, make, python3 (3.11 to 3.13) and python3-venv; brings everything else.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo test matrix fuzz check bench bench-alert-path bench-card bench-spool bench-resources bench-detection bench-cost bench-pumps calibrate noise kills soak clean

# Much of the time tests wait for real processes: more of them than cores.
SIDE_BY_SIDE := --numprocesses 4 --dist worksteal

DAYS ?= 200
SEED ?= 1
GATEWAYS ?= 1000
BROKERS ?= 200
SEEDS ?= 20

help:
	@echo "make demo    a simulated pump goes wrong and a nurse is told: everything on this machine, Ctrl-C ends it"
	@echo "make test    all tests, with their set-up"
	@echo "make matrix  every therapy with every fault, in all variants: some minutes"
	@echo "make fuzz    a million pieces of garbage for each family of pumps: some minutes"
	@echo "make check   style and types"
	@echo "make bench   the alert path, compared with the bare parts it is made of; how soon a wrong flow is found,"
	@echo "             compared with simpler detectors and with the best; what a reading costs, and what reading pumps;"
	@echo "             what a day costs the memory card; how fast seven days without the broker leave; memory and processor"
	@echo "             (one of them: make bench-alert-path, bench-card, bench-spool, bench-resources, bench-detection, bench-cost, bench-pumps)"
	@echo "make calibrate   where the thresholds of detection must be, found by simulation; then what the whole core"
	@echo "             makes of them: delays as multiples of the best possible, false alarms in 1,150 faultless days"
	@echo "make noise   false alerts and misses in so many days of ordinary homes: DAYS=1000 SEED=1"
	@echo "make kills   1,000 kill -9 of gateways and 200 of Mosquitto while alerts change: GATEWAYS=1000 BROKERS=200"
	@echo "make soak    homes in a fake world, a day or a week each, in which all goes wrong that can: SEEDS=20"
	@echo "make clean   removes what these have made here"

demo: .venv/installed-demo
	@exec $(BIN)/dripwatch demo

test: .venv/installed-dev
	@.ci/install-for-tests
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

matrix: .venv/installed-dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "long or not long" tests/regimens

fuzz: .venv/installed-dev
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m long tests/drivers

check: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: bench-alert-path bench-card bench-spool bench-resources bench-detection bench-cost bench-pumps

bench-alert-path: .venv/installed-dev
	@.ci/install-for-tests
	$(BIN)/python -m benchmarks.alert_path

bench-card: .venv/installed-dev
	$(BIN)/python -m benchmarks.card

bench-spool: .venv/installed-dev
	$(BIN)/python -m benchmarks.spool

bench-resources: .venv/installed-dev
	@.ci/install-for-tests
	$(BIN)/python -m benchmarks.resources

bench-detection: .venv/installed-dev
	$(BIN)/python -m benchmarks.detection

bench-cost: .venv/installed-dev
	$(BIN)/python -m benchmarks.cost

bench-pumps: .venv/installed-dev
	$(BIN)/python -m benchmarks.reading_pumps

calibrate: .venv/installed-dev
	$(BIN)/python -m benchmarks.calibrate
	$(BIN)/python -m benchmarks.bound
	$(BIN)/python -m benchmarks.messy_home --clean --ordered-poll --days 1150 --seed 20261125

noise: .venv/installed-dev
	$(BIN)/python -m benchmarks.messy_home --days $(DAYS) --seed $(SEED)

kills: .venv/installed-dev
	@.ci/install-for-tests
	$(BIN)/python -m tests.live.kills --gateway $(GATEWAYS) --broker $(BROKERS) --seed $(SEED)

soak: .venv/installed-dev
	$(BIN)/python -m tests.world.soak --seeds $(SEEDS)

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .hypothesis

# The builder is installed first, so that its version too is the one of constraints.txt.
.venv/installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Dripwatch needs Python 3.11, 3.12 or 3.13; $(PYTHON) is another or is missing. Name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "Setting up .venv for '$*'; this takes about a minute, once."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP_INSTALL) setuptools
	@$(PIP_INSTALL) --no-build-isolation --use-pep517 --editable '.[$*]'
	@touch $@
