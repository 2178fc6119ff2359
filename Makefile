# make run, make test: on a machine with Python 3.11 or newer, git and make. `make help` lists the rest.

PYTHON ?= python3
INSTALL = -m pip -qq --disable-pip-version-check --no-input install --root-user-action=ignore \
	--require-hashes --requirement
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements"

.DEFAULT_GOAL := help
.PHONY: help run test check requirements

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: .venv/.demo-installed $(if $(filter native,$(MCP)),.venv-mcp2/.installed) ## start the demo, with all it needs; MCP=native: its MCP server speaks MCP
	@.venv/bin/python -m demo

.PHONY: traffic
traffic: .venv/.demo-installed ## send some minutes of traffic to a running demo, for /metrics and the dashboard
	@.venv/bin/python -m demo.traffic

test: .venv/.dev-installed .venv-mcp1/.installed .venv-mcp2/.installed ## run the tests
	@.venv/bin/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --ignore tests/delivery

.PHONY: delivery
delivery: .venv/.dev-installed .venv-compose/.installed ## build and run the image, deploy it, judge the alerts: needs root and what .ci/run installs
	@.venv/bin/python -m pytest -rs --timeout 600 tests/delivery

check: .venv/.dev-installed ## lint, format and types
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/python -m benchmarks.documents --check

.PHONY: fuzz
fuzz: .venv/.dev-installed .venv-fuzz/.installed ## try 50,000 hostile inputs, and schemathesis: a few minutes
	@FUZZ=long .venv/bin/python -m pytest -s tests/security/test_fuzz.py tests/security/test_abuse.py tests/security/test_schema.py
	@.venv/bin/python -m benchmarks.documents

.PHONY: base-image
base-image: ## pin the image that the Dockerfile begins with by what its tag is in the registry now
	@docker-scripts/pin-base.sh

requirements: .venv/.dev-installed ## pin what the *.in files name
	$(COMPILE) requirements.in -o requirements.txt
	$(COMPILE) requirements/demo.in -o requirements/demo.txt
	$(COMPILE) requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/bench.in -o requirements/bench.txt
	$(COMPILE) requirements/fuzz.in -o requirements/fuzz.txt
	$(COMPILE) requirements/compose.in -o requirements/compose.txt
	$(COMPILE) requirements/mcp1.in -o requirements/mcp1.txt
	$(COMPILE) requirements/mcp2.in -o requirements/mcp2.txt

.PHONY: vendor
vendor: ## renew web/vendor/, what the chat page takes from npm, of the versions in requirements/web: needs node
	@requirements/web/bundle.sh

.venv/.%-installed: requirements/%.txt | .venv/bin/pip
	@echo "Installing $< into .venv ..."
	@.venv/bin/python $(INSTALL) $<
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed, and $(PYTHON) is not. Name one: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@test ! -e .venv/.unfinished || rm -rf .venv  # the last attempt was interrupted
	@mkdir -p .venv && touch .venv/.unfinished
	@$(PYTHON) -m venv .venv && rm .venv/.unfinished

.PHONY: bench
bench: .venv-bench/.installed ## measure the gateway beside a FastAPI peer, some minutes; QUICK=1: about one
	@.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

# Packages of their own, so that what is developed and shipped stays free of them.
.venv-%/.installed: requirements/%.txt | .venv/bin/pip
	@echo "Installing $< into .venv-$* ..."
	@$(PYTHON) -m venv .venv-$*
	@.venv-$*/bin/python $(INSTALL) $<
	@touch $@

.PHONY: soak
soak: .venv/.dev-installed ## live a day in an hour, faults included, and see that nothing is lost or left; MINUTES=2: the short form
	@.venv/bin/python -m benchmarks.soak --minutes $(or $(MINUTES),60)

.PHONY: faults
faults: .venv/.dev-installed ## break everything under load and count what is lost: some minutes
	@FAULTS=long .venv/bin/python -m pytest tests/faults
