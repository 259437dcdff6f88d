# make run: set up, run the pipeline, show the metrics.   make test: set up, run the tests.
# make audit: known vulnerabilities of all dependencies.   make sbom: what is installed, as CycloneDX, in sbom.json.
# make image-test: build the image and try it, with docker, podman or buildah (docs/image.md).
# TORCH=cuda installs the CUDA build of PyTorch; PYTHON=... chooses the Python (3.11 installs everything).

TORCH ?= cpu
PYTHON ?= $(shell command -v python3.11 || command -v python3)

# every path is relative: make cannot handle spaces in absolute ones
BIN = .venv/bin
SECURITY = .venv/security
READY = .venv/installed-$(TORCH)
INDEX_cpu = --extra-index-url https://download.pytorch.org/whl/cpu
INDEX_cuda =

export PIP_DISABLE_PIP_VERSION_CHECK = 1
# stages are run as `python`, which must be the one of .venv
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: run check-lock test lint audit sbom image-test install clean

run: install
	dvc repro
	dvc metrics show --md metrics/evaluate/metrics.json

# after make run: whether this machine made what the committed dvc.lock says (docs/determinism.md)
check-lock: install
	python scripts/check_lock.py

test: install
	python -m pytest

lint: install
	ruff check
	ruff format --check
	mypy
	lint-imports
	deptry .
	vulture
	hadolint Dockerfile

audit: $(SECURITY)/installed
	$(SECURITY)/bin/python scripts/audit.py

# no time and no random number in it: same environment, same bytes
sbom: install $(SECURITY)/installed
	$(SECURITY)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible -o .sbom.json.draft
	mv .sbom.json.draft sbom.json

# ENGINE, BASE and the other variables of the script are taken from the environment
image-test:
	scripts/image-test

# an environment of their own: what they need is not what is looked at
$(SECURITY)/installed: scripts/security.txt
	"$(PYTHON)" -m venv --clear $(SECURITY)
	$(SECURITY)/bin/python -m pip install -q -r scripts/security.txt
	touch $@

install: $(READY)

# torch by itself: only this step may look at PyTorch's own index, which has the builds without CUDA; what torch
# depends on comes with the rest, so that an index out of reach costs seconds once and not once per package
$(READY): pyproject.toml constraints.txt
	@test -n "$(INDEX_$(TORCH))$(filter cuda,$(TORCH))" || { echo "TORCH=$(TORCH): expected cpu or cuda" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "newsfuse needs Python 3.11 or newer; try: make PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	rm -f .venv/installed-*
	test -e .venv/torch-$(TORCH) || { python -m pip uninstall -qy torch && rm -f .venv/torch-*; }
	python -m pip install -q --no-deps torch -c constraints.txt $(INDEX_$(TORCH))
	touch .venv/torch-$(TORCH)
	python -m pip install -q -e '.[dev]' -c constraints.txt
	python -m pip check
	touch $(READY)

clean:
	rm -rf .venv
