# Everything from a fresh machine with Python 3.10+ and make: `make train`, `make test`.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
RUN    := runs/default
CONFIGS := bundles/topolora_sam_segmentation/configs
BUNDLE := $(PY) -m monai.bundle run
READY  := $(VENV)/.ready
LABEL  := .venv-label
LABEL_READY := $(LABEL)/.ready

.PHONY: help setup train test lint docs bench label label-test web clean

help:
	@echo "make train   set up, then train, evaluate and draw on synthetic images (about 5 min on 2 cores)"
	@echo "make test    set up, then lint, type-check and test (about 15 min on 2 cores)"
	@echo "make lint    ruff and mypy alone"
	@echo "make docs    set up, then build the documentation into site/ (about half a minute)"
	@echo "make bench   time and memory of an encoder step against the original (about 12 min)"
	@echo "make label   set up the annotation server in an environment of its own (about 5 min, 6 GB)"
	@echo "make label-test  set that up, then test it (about 10 min)"
	@echo "make web     build the annotation server's page; needs Node.js 20.19 or newer (about 1 min)"
	@echo "make clean   remove the environment and the default run"

setup: $(READY)

# A second run finds the stamp and reuses the environment, until what it is made of changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else f"Python 3.10 or newer is needed, found {v.major}.{v.minor}; try: make PYTHON=python3.11")'
	@echo "[setup] creating $(VENV) and installing pinned packages: 2 to 5 minutes and 6 GB at first"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@$(PY) -c 'import torchvision' || { echo "torch and torchvision are not from the same build; install the pair named in constraints.txt"; exit 1; }
	@touch $@
	@echo "[setup] done"

train: $(READY)
	@echo "[train] 1/3 training on generated vessel images: about 3 minutes on 2 cores; Ctrl-C is safe, it resumes"
	$(BUNDLE) training --config_file $(CONFIGS)/train.yaml --output_dir $(RUN)
	@echo "[train] 2/3 evaluating on the test images: some seconds"
	$(BUNDLE) evaluating --config_file $(CONFIGS)/evaluate.yaml --output_dir $(RUN)
	@echo "[train] 3/3 done:"
	@echo "  adapter   $(RUN)/adapter.safetensors"
	@echo "  metrics   $(RUN)/evaluation/summary.json, per_image.csv"
	@echo "  pictures  $(RUN)/evaluation/pictures/"

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	@echo "[test] running the suite: about 14 minutes on 2 cores"
	$(PY) -m pytest -n 2 --dist loadfile

# The variable keeps the theme from printing an advertisement of its successor.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "[docs] open site/index.html; $(PY) -m mkdocs serve shows changes as they are made"

bench: $(READY)
	$(PY) scripts/bench/encoder_step.py

label: $(LABEL_READY)
	@echo "[label] start it with: $(LABEL)/bin/topolora label --studies FOLDER --adapter FILE --weights FILE"

# MONAI Label declares numpy < 2 and more than the app uses: what it needs is the extra, itself comes without the rest.
$(LABEL_READY): pyproject.toml constraints-label.txt
	@echo "[label] creating $(LABEL) and installing pinned packages: 5 to 10 minutes and 6 GB at first"
	@test -x $(LABEL)/bin/python || $(PYTHON) -m venv $(LABEL)
	@$(LABEL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-label.txt --editable ".[label]" pytest httpx playwright dcmqi
	@$(LABEL)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-label.txt --no-deps monailabel
	@$(LABEL)/bin/python -c 'from topolora_monai.label_app.patches import check_version; check_version()'
	@touch $@

label-test: $(LABEL_READY)
	$(LABEL)/bin/python -m pytest -o addopts="--doctest-modules --strict-markers -ra --ignore=topolora_monai/label_app/asgi.py" tests/label_app topolora_monai/label_app

web:
	cd web && npm ci && npm test && npm run build

clean:
	rm -rf $(VENV) $(LABEL) $(RUN) site
