# Everything stands on .venv, made once from Python >= 3.11 and pinned by constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo

# Two cores: several processes at a time, one thread each, that sleep while they wait.
export OMP_WAIT_POLICY := passive
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test soak lint format docs coverage constraints clean

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

install: .venv/.installed ## Make .venv and install vtc into it

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vtc needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[study,dev]'
	touch $@

demo: install ## The quick study, from images to a recommendation (about ten minutes on two cores)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakemake --snakefile recipes/study/Snakefile \
		--config study=quick --directory $(DEMO) --cores 2 --quiet rules
	@cat $(DEMO)/report.txt

test: install ## All tests, offline, on the CPU
	$(BIN)/python -m pytest -n 2

coverage: install ## All tests again, a third slower: which lines none of them reaches
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term:skip-covered --cov-fail-under=85

soak: install ## Trainings killed at random moments, twenty times each kind, end as undisturbed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s tests/soak.py

lint: install ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error

format: install ## Mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install ## Remake docs/cli.md and docs/tables.md from the program
	$(BIN)/python docs/build.py

constraints: install ## Write the installed versions into constraints.txt
	( echo '# The whole tree of packages that make installs, pinned. Remade by: make constraints'; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' ) > constraints.txt

clean: ## Remove what the demo made
	rm -rf $(DEMO)
