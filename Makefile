# weightlab: `make` alone lists what there is to do.
PROFILE ?= quick
NB ?= 02_optimizers
# Who runs searches: WORKERS processes here (all cores), or a dask SCHEDULER: its address, or a YAML file of params/cluster.
WORKERS ?=
SCHEDULER ?=

# Threads that wait do not spin: on a busy machine spinning costs a factor of eight.
export OMP_WAIT_POLICY ?= PASSIVE

# With PYTHON given (say, inside a conda environment: make PYTHON=python ...) nothing is installed; else .venv is made and used.
ifdef PYTHON
RUN := $(PYTHON)
ENV :=
else
RUN := .venv/bin/python
ENV := .venv/.complete
endif

PROFILES := $(filter-out cluster %.yaml,$(notdir $(wildcard params/*)))
ifeq ($(filter $(PROFILE),$(PROFILES)),)
$(error unknown PROFILE '$(PROFILE)'; allowed: $(PROFILES))
endif
# A notebook is run under its own name, unless params/experiments.yaml names it: then under the names that stand there.
NAMED := $(shell sed -n 's/^\([0-9][^:]*\):.*/\1/p' params/experiments.yaml 2>/dev/null)
notebook = $(or $(shell sed -n '/^$(1):/,/notebook:/s/^ *notebook: *//p' params/experiments.yaml 2>/dev/null),$(1))
NOTEBOOKS := $(basename $(notdir $(wildcard notebooks/[0-9]*.ipynb)))
NOTEBOOKS := $(sort $(NAMED) $(filter-out $(foreach name,$(NAMED),$(call notebook,$(name))),$(NOTEBOOKS)))
ifeq ($(filter $(NB),$(NOTEBOOKS)),)
$(error unknown notebook NB '$(NB)'; allowed: $(NOTEBOOKS))
endif

LIBRARY := $(shell find lib/weightlab -name "*.py")
DATA := $(or $(WEIGHTLAB_DATA),data)
MNIST := $(DATA)/mnist/.verified
FASHION := $(DATA)/fashion_mnist/.verified
MODELS := models/lenet5_tanh.safetensors models/lenet5_relu.safetensors
STAND_IN := models/mobilenet_v2_fashion.safetensors
ON_FASHION := models/lenet5_fashion.safetensors models/alexnet_fashion.safetensors
# Tables of EvoApprox8b, which are not ours to publish: tests read them where this archive is, unless a folder of tables is named already.
ARCHIVE := $(if $(WEIGHTLAB_MULTIPLIERS),,$(wildcard ../shared/data/evoapprox_mul8u.tar.xz))
MULTIPLIERS := $(ARCHIVE:%=build/multipliers/.complete)

.DEFAULT_GOAL := help
.PHONY: help env data models retrain experiments experiment status report lab test browser-test bench bench-faults bench-files bench-multipliers bench-networks lint format clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS="$$(printf '\t')" read -r name text; do printf '  %-17s %s\n' "$$name" "$$text"; done

env: $(ENV) ## make .venv with the tested versions (nothing with PYTHON=...)
# pip compiles one module after the other, and those of the packages' own tests too: most of the time that it takes.
.venv/.complete: pyproject.toml constraints.txt
	test -x .venv/bin/python || python3.11 -m venv .venv || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[test]'
	.venv/bin/python -m compileall -qq -j 0 -x '/tests?/' .venv/lib lib || true
	touch $@

data: | $(ENV) ## download MNIST and Fashion-MNIST and verify their checksums
	$(RUN) -m weightlab.data
$(DATA)/%/.verified: | $(ENV)
	$(RUN) -m weightlab.data $*
	touch $@

models: $(ENV) ## verify the trained networks, train what is missing
	$(RUN) -m weightlab.training
$(MODELS): | $(MNIST)
$(STAND_IN) $(ON_FASHION): | $(FASHION)
$(MODELS) $(STAND_IN) $(ON_FASHION): | $(ENV)
	$(RUN) -m weightlab.training $(basename $(notdir $@))

retrain: $(ENV) $(MNIST) $(FASHION) ## train the networks again (4 to 30 minutes each on one core)
	$(RUN) -m weightlab.training --retrain

experiments: $(NOTEBOOKS:%=outputs/$(PROFILE)/%/notebook.ipynb) ## run all notebooks (PROFILE=smoke, quick or full)
	@$(RUN) -m weightlab results --profile $(PROFILE)

experiment: outputs/$(PROFILE)/$(NB)/notebook.ipynb ## run one notebook: NB=02_optimizers PROFILE=smoke
	@$(RUN) -m weightlab results --profile $(PROFILE)

outputs/$(PROFILE)/%/notebook.ipynb: params/$(PROFILE)/%.yaml $(LIBRARY) $(MODELS) | $(ENV) $(MNIST)
	$(RUN) -m weightlab run $* --profile $(PROFILE) $(WORKERS:%=--workers %) $(SCHEDULER:%=--scheduler %)

$(foreach name,$(NOTEBOOKS),$(eval outputs/$(PROFILE)/$(name)/notebook.ipynb: notebooks/$(call notebook,$(name)).ipynb))
$(NAMED:%=outputs/$(PROFILE)/%/notebook.ipynb): params/experiments.yaml
$(patsubst %,outputs/$(PROFILE)/%/notebook.ipynb,07_mobilenet_v2 21_rate_distortion 22_codebook_tuning): $(STAND_IN) | $(FASHION)
$(patsubst %,outputs/$(PROFILE)/%/notebook.ipynb,31_approximate_multipliers): $(ON_FASHION) | $(FASHION)

# Notebooks that read what others wrote run after them.
executed = $(patsubst %,outputs/$(PROFILE)/%/notebook.ipynb,$(filter $(1),$(NOTEBOOKS)))
$(call executed,11%): $(call executed,04%)
$(call executed,12%): $(call executed,06%)
$(call executed,13%): $(call executed,01% 02% 03% 04% 05% 06% 07% 11% 12%) published/claims.csv
# What others wrote is shown beside its own results, but it needs none of it: by itself it runs at once.
ifneq ($(filter experiments,$(MAKECMDGOALS)),)
$(call executed,21%): $(call executed,02% 03% 04% 06% 07%)
endif

status: $(ENV) ## tell which searches of PROFILE are complete, partial or failed, and how long the rest takes
	@$(RUN) -m weightlab status --profile $(PROFILE) $(WORKERS:%=--workers %)

report: $(ENV) ## make a site of PROFILE's executed notebooks, docs and a reference: build/report/<profile>/index.html
	@$(RUN) -m weightlab report --profile $(PROFILE)

lab: $(ENV) $(MNIST) ## open JupyterLab on a page that links the notebooks
	$(RUN) -m jupyterlab --notebook-dir . --LabApp.default_url=/lab/tree/notebooks/index.ipynb

test: $(ENV) $(MNIST) $(FASHION) $(MODELS) $(STAND_IN) $(ON_FASHION) $(MULTIPLIERS) ## run the tests
	$(MULTIPLIERS:%/.complete=WEIGHTLAB_MULTIPLIERS='$(CURDIR)/%' )$(RUN) -m pytest -n 3 --dist worksteal
build/multipliers/.complete:
	mkdir -p $(@D)
	tar -xJf $(ARCHIVE) -C $(@D)
	touch $@

browser-test: $(ENV) $(MNIST) $(FASHION) $(MODELS) ## run JupyterLab and the report in a real browser (Debian's chromium)
	@$(RUN) -m pytest -n 0 tests/browser

bench: $(ENV) $(MNIST) $(MODELS) ## measure the evaluation engine (about 6 minutes)
	$(RUN) benchmarks/evaluation.py

bench-faults: $(ENV) $(MNIST) $(MODELS) ## kill, fill, flip and interrupt long runs; measure two workers (about 30 minutes)
	$(RUN) benchmarks/faults.py

bench-files: $(ENV) $(MODELS) $(STAND_IN) ## measure packed files beside coremltools' and nncodec's, read 100 000 mutated ones of both versions (35 to 60 minutes)
	$(RUN) benchmarks/files.py

bench-multipliers: $(ENV) $(FASHION) $(ON_FASHION) $(MULTIPLIERS) ## measure convolutions with approximate multipliers and a search over them (about 5 minutes)
	$(MULTIPLIERS:%/.complete=WEIGHTLAB_MULTIPLIERS='$(CURDIR)/%' )$(RUN) benchmarks/multipliers.py

bench-networks: $(ENV) $(MNIST) $(MODELS) ## hold 2 000 random networks against the engine; a network at 224 x 224 (about 8 minutes)
	$(RUN) benchmarks/networks.py

lint: $(ENV) ## check style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(ENV) ## mend style
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean: ## remove outputs (but those of PROFILE=full), caches and the environment; data and models stay
	find outputs -mindepth 1 -maxdepth 1 ! -name full -exec rm -rf {} + 2>/dev/null || true
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis build lib/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
