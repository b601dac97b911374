# `make demo` and `make test` set up what they need by themselves. Everything lands in .venv/ and runs/.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip
# Every value is given, so that accelerate has no default to warn about; one process, on one device where there is one.
# accelerate gives a process one thread where nobody says otherwise: the demo takes all cores.
THREADS := $(shell getconf _NPROCESSORS_ONLN)
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process $(THREADS)
OLD_PYTHON := Afterglow needs Python 3.11 or newer: name one, as in `make PYTHON=python3.12 demo`.

.PHONY: demo test faults localization emergence mitigation lint format lock docs

demo: .venv/.installed  # a second call continues where the first one stopped
	$(LAUNCH) train.py --resume auto

test: .venv/.installed
	$(BIN)/pytest

# The long tests of docs/guarantees.md: more than 100 kills, full disks, memory; they print their counts.
faults: .venv/.installed
	$(BIN)/pytest -m faults -n 0 -s

# Repeats the runs of a finding that are missing under docs/findings/, and writes its page; `--list` prints the commands.
localization emergence mitigation: .venv/.installed
	$(BIN)/python scripts/reproduce.py $@

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# The site in site/; a warning is an error. It needs no network.
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# A folder of wheels on this machine must not decide what the lock says.
lock: $(BIN)/uv
	PIP_FIND_LINKS= UV_FIND_LINKS= $(UV) compile pyproject.toml --extra dev --extra docs --universal --python-version 3.11 --quiet \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file requirements.lock

# --python, since uv would otherwise prefer whichever environment the shell has activated.
.venv/.installed: requirements.lock pyproject.toml | $(BIN)/uv
	$(UV) install --python $(BIN)/python --requirement requirements.lock
	$(UV) install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo '$(OLD_PYTHON)' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet uv
