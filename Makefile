# `make demo` and `make test` set up what they need by themselves. Everything lands in .venv/ and runs/.
PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip
# Every value is given, so that accelerate has no default to warn about; one process, on one device where there is one.
# accelerate gives a process one thread where nobody says otherwise: the demo takes all cores.
THREADS := $(shell getconf _NPROCESSORS_ONLN)
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process $(THREADS)
OLD_PYTHON := Afterglow needs Python 3.11 or newer: name one, as in `make PYTHON=python3.12 demo`.

FINDINGS := shapes-0 shapes-1 copies-0 copies-1 # recipe-seed, of configs/findings/

# Of the finding "emergence": recipe-options-seed. Steps grow with the set, so that memorization comes before a run ends.
SEEDS := 0 1 2
SIZES := 16 32 64 128
HALVES := 500-0 500-1 2000-0 2000-1
EMERGENCE := $(foreach seed,$(SEEDS),$(SIZES:%=sizes-%-$(seed)) $(HALVES:%=halves-%-$(seed)))
sizes_16 := 400
sizes_32 := 700
sizes_64 := 1200
sizes_128 := 2100
halves_500 := 900
halves_2000 := 1300
# --model of each control, and the run whose training set it is judged against
CONTROLS := own optimal other planted-optimal
own := runs/sizes-64-0
optimal := optimal:runs/sizes-64-0
other := runs/other-64-0
planted-optimal := optimal:runs/halves-500-0-0
judged = runs/$(if $(findstring planted,$(1)),halves-500-0-0,sizes-64-0)
# Of the finding "mitigation": models that mitigations act on, and at training time mitigation-seed, each beside none-seed.
REMEDIED := demo seed1 shapes-0 shapes-1
TRAINED := $(foreach seed,0 1,$(addsuffix -$(seed),none magnitude entropy replaced words repeats noise exact pixels local stop advantage))
option_magnitude := --mitigation.drop magnitude
option_entropy := --mitigation.drop entropy
$(foreach kind,replaced words repeats noise,$(eval option_$(kind) := --mitigation.captions $(kind)))
option_stop := --monitor.early_stop.monitor memorized
option_advantage := --monitor.early_stop.monitor advantage
word_of = $(word $(1),$(subst -, ,$(2)))

.PHONY: demo test findings emergence mitigation lint format lock docs

demo: .venv/.installed  # a second call continues where the first one stopped
	$(LAUNCH) train.py --ckpt_path last

test: .venv/.installed
	$(BIN)/pytest

# Makes the runs that are missing under docs/findings/data/ (about 20 minutes each on two quiet cores), goes on with torn ones.
findings: .venv/.installed $(FINDINGS:%=docs/findings/data/%/measurements.parquet)
	$(BIN)/python analysis/findings.py localization

docs/findings/data/%/measurements.parquet:
	$(LAUNCH) train.py --config configs/findings/$(word 1,$(subst -, ,$*)).yaml --seed_everything $(word 2,$(subst -, ,$*)) \
		--name $* --ckpt_path last
	$(BIN)/python analysis/findings.py localization --keep runs/$*

# About 5 minutes a run on one quiet core; the controls are extractions from the smallest and the largest of them.
emergence: .venv/.installed $(EMERGENCE:%=docs/findings/emergence/%/measurements.parquet) $(CONTROLS:%=docs/findings/emergence/controls/%/extract.parquet)
	$(BIN)/python analysis/findings.py emergence

docs/findings/emergence/sizes-%/measurements.parquet:
	$(LAUNCH) train.py --config configs/findings/sizes.yaml --data.set_size $(call word_of,1,$*) --seed_everything $(call word_of,2,$*) \
		--trainer.max_steps $(sizes_$(call word_of,1,$*)) --name sizes-$* --ckpt_path last
	$(BIN)/python analysis/findings.py emergence --keep runs/sizes-$*

docs/findings/emergence/halves-%/measurements.parquet:
	$(LAUNCH) train.py --config configs/findings/halves.yaml --data.set_size $(call word_of,1,$*) --data.planting.arm $(call word_of,2,$*) \
		--seed_everything $(call word_of,3,$*) --trainer.max_steps $(halves_$(call word_of,1,$*)) --name halves-$* --ckpt_path last
	$(BIN)/python analysis/findings.py emergence --keep runs/halves-$*

docs/findings/emergence/controls/%/extract.parquet:
	$(if $(filter other,$*),$(LAUNCH) train.py --config configs/findings/sizes.yaml --data.set_size 64 --data.skip_first 64 \
		--trainer.max_steps $(sizes_64) --name other-64-0 --ckpt_path last)
	$(BIN)/python analysis/extract.py --model $($*) --planted $(call judged,$*) --num-images 256 --steps 25 --out runs/control-$*
	mkdir -p $(@D) && cp runs/control-$*/*.parquet $(@D)

# About 15 minutes a model, 5 minutes a training, on one quiet core; a model that is not there is trained (20 minutes on two).
model_seed1 := --seed_everything 1
$(foreach seed,0 1,$(eval model_shapes-$(seed) := --config configs/findings/shapes.yaml --seed_everything $(seed)))
trained = $(if $(wildcard runs/$(1)/emergence.json),,$(LAUNCH) train.py $(model_$(1)) --name $(1) --ckpt_path last)

mitigation: .venv/.installed $(REMEDIED:%=docs/findings/mitigation/mitigation-%/plants.parquet) \
		docs/findings/mitigation/strengths-shapes-0/plants.parquet \
		$(TRAINED:%=docs/findings/mitigation/mitigations-%/measurements.parquet)
	$(BIN)/python analysis/findings.py mitigation

docs/findings/mitigation/mitigation-%/plants.parquet:
	$(call trained,$*)
	$(BIN)/python analysis/mitigate.py --model runs/$* --planted runs/$* --plants 8 --controls 24 --heldout 16 \
		--kinds global local control heldout --steps 12 --out runs/mitigation-$*
	$(BIN)/python analysis/findings.py mitigation --keep runs/mitigation-$*

docs/findings/mitigation/strengths-%/plants.parquet:
	$(call trained,$*)
	$(BIN)/python analysis/mitigate.py --model runs/$* --planted runs/$* --plants 8 --controls 16 --heldout 8 --num-images 2 \
		--kinds global local control heldout --steps 12 --out runs/strengths-$* \
		--mitigations random.words memattn stp og_stp wen.magnitude --strengths grid
	$(BIN)/python analysis/findings.py mitigation --keep runs/strengths-$*

# These are trained on a set whose duplicates were removed before.
DEDUPLICATED := exact pixels local
docs/findings/mitigation/mitigations-%/measurements.parquet:
	$(if $(filter $(DEDUPLICATED),$(call word_of,1,$*)),$(BIN)/python train/plant.py --config configs/findings/mitigations.yaml \
		--seed_everything $(call word_of,2,$*) --out runs/planted-$*)
	$(if $(filter $(DEDUPLICATED),$(call word_of,1,$*)),$(BIN)/python train/deduplicate.py runs/planted-$* --by $(call word_of,1,$*) \
		--seed $(call word_of,2,$*) --out runs/kept-$*)
	$(LAUNCH) train.py --config configs/findings/mitigations.yaml --seed_everything $(call word_of,2,$*) $(option_$(call word_of,1,$*)) \
		$(if $(filter $(DEDUPLICATED),$(call word_of,1,$*)),--data.dataset planted --data.data_dir runs/kept-$*) --name mitigations-$* --ckpt_path last
	$(BIN)/python analysis/findings.py mitigation --keep runs/mitigations-$*

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
