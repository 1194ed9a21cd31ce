# Common tasks. `make` without a target lists them.

# python3 first, because the user chose it. PYTHON=… selects another.
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && command -v $(name))))
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input -q

# Installs uv with its hashes. It installs in a tenth of pip's time, but does not read pip's configuration, so where it finds no
# index pip does it all.
uv = sed -n '/^uv==/,/^    \#/p' requirements-dev.txt | $(PIP) --require-hashes -r /dev/stdin
install = @{ $(uv) && $(BIN)/uv pip install -q --require-hashes --python $(BIN)/python -r $(1); } 2>/dev/null || \
	$(PIP) --require-hashes -r $(1)

# What an image installs, see Dockerfile.
INSTALLED = requirements.txt requirements-exports.txt requirements-telemetry.txt

# The command `weighbridge`: no network, setuptools is one of the requirements.
command = @$(PIP) --no-deps --no-build-isolation -e .

# Each process that the tests start would compile every module again: 8 s of processor time instead of 1 s.
unexport PYTHONDONTWRITEBYTECODE

# Half as many again as cores, because many tests wait for the processes that they start.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(3 * (os.cpu_count() or 1) // 2)')

.DEFAULT_GOAL := help
.PHONY: help run quick image test test-exports faults soak lint format bench pictures docs lock audit sbom clean

help: ## Show these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: .venv/installed ## Start the service with a stand-in for Scale, on SQLite, with nothing else to install
	@$(BIN)/weighbridge up

test: .venv/installed-dev ## Run all tests (ARGS="tests/scale -k mask" runs some)
	@$(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal $(ARGS)

test-exports: .venv/installed-exports .venv-readers/installed .venv-labelstudio/installed ## Read exports back with the tools that they are for
	@REQUIRE_READERS=1 $(BIN)/pytest -n $(TEST_PROCESSES) tests/exports $(ARGS)

faults: .venv/installed-dev ## Run the 40 cases of docs/reliability.md
	@FULL_AMOUNTS=1 $(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal $$($(BIN)/python -m tests.reliability.cases) $(ARGS)

soak: .venv/installed-dev ## Kill and freeze everything at random for MINUTES on each database, and account for every result
	@$(BIN)/python -m tests.reliability.soak --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

image: .venv/installed-dev ## Build the image without Docker (Debian, root), and run a chain of tasks through it
	deploy/build-image.sh
	@$(BIN)/pytest -q tests/system/image.py

quick: lint ## Run lint and the tests that start no server, in under two minutes
	@$(BIN)/pytest -q -n $(TEST_PROCESSES) -m "not slow and not servers" $(ARGS)

lint: .venv/installed-dev ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev ## Format the code and apply ruff's fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev ## Measure the data path next to the limit of its parts and a naive version of this service
	@$(BIN)/python -m benchmarks $(ARGS)

pictures: .venv/installed-dev ## Take the pictures of README and of each task type from the running service (needs Chromium)
	@$(BIN)/python docs/pictures/take.py

docs: .venv-docs/installed ## Build the documentation site into var/site/html, and check every link
	@$(BIN)/python -m docs.site.pages var/site
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build -q --strict -f var/site/mkdocs.yml
	@echo "var/site/html/index.html"

lock: .venv/installed-dev ## Write requirements*.txt from requirements*.in, for every platform and Python (ARGS=--upgrade)
	for group in "" -dev -exports -telemetry -readers -labelstudio -docs; do \
		$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes $(ARGS) \
			requirements$$group.in -o requirements$$group.txt || exit 1; done

audit: .venv/installed-dev ## Look for known vulnerabilities of what an image installs; fails if a package cannot be looked up
	@failed=; for file in $(INSTALLED); do \
		echo "$$file"; $(BIN)/pip-audit --strict --disable-pip -r $$file || failed=1; done; [ -z "$$failed" ]

sbom: ## Write a bill of materials (CycloneDX) of the locked packages, or of IMAGE=name, to var/sbom.json
	@mkdir -p var
	@$(if $(IMAGE),docker run --rm $(IMAGE) python,$(PYTHON)) deploy/sbom.py \
		$(if $(IMAGE),,$(INSTALLED)) > var/sbom.json
	@echo "var/sbom.json"

clean: ## Remove the virtualenv and caches; var/ (your data) stays
	rm -rf .venv .venv-readers .venv-labelstudio .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: requirements.txt | .venv/bin/python
	@echo "Installing what Weighbridge runs on into .venv (once) …"
	$(call install,requirements.txt)
	$(command)
	@touch $@

.venv/installed-dev: requirements-dev.txt | .venv/bin/python
	@echo "Installing what the tests and checks need into .venv (once) …"
	$(call install,requirements-dev.txt)
	$(command)
	@touch .venv/installed $@

.venv/installed-exports: requirements-exports.txt .venv/installed-dev
	@echo "Installing what some export formats need into .venv (once) …"
	$(call install,requirements-exports.txt)
	@touch $@

# The tools that read exports back pin what the service does not: each group has an environment of its own.
.venv-%/installed: requirements-%.txt | .venv/installed-dev
	@echo "Installing the readers of $< into .venv-$* (once) …"
	@$(PYTHON) -m venv --clear .venv-$*
	@{ $(uv) && $(BIN)/uv pip install -q --require-hashes --python .venv-$*/bin/python -r $<; } 2>/dev/null || \
		.venv-$*/bin/python -m pip install --disable-pip-version-check --no-input -q --require-hashes -r $<
	@touch $@

.venv/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Weighbridge needs Python 3.11 or newer, and found none (python3 is $$(python3 -V 2>/dev/null || echo missing))." >&2; \
		echo "Install one (for example: apt install python3.11-venv, brew install python@3.13), or name it: make run PYTHON=/path/to/python3.13" >&2; \
		exit 1; fi
	@if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); Weighbridge needs Python 3.11 or newer. Name another: make run PYTHON=/path/to/python3.13" >&2; \
		exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) comes without the venv module. On Debian or Ubuntu: apt install python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv" >&2; \
		exit 1; fi
	@$(PYTHON) -m venv --clear .venv
