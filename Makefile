# Everything a newcomer needs: `make run` does the main job, `make test` the tests. Both set up what is missing first.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
# What is installed beside the library, by pyproject.toml: `make setup EXTRAS=dev,train` adds what training needs.
EXTRAS ?= dev
comma  := ,
STAMP  := $(VENV)/.setup-$(subst $(comma),-,$(EXTRAS))
RUN    ?= runs/reference
BOARD  ?= virtual
# Processes that share the tests. A board with hardware has one owner, so its tests have one process.
WORKERS ?= 2
SHARED := $(if $(filter virtual,$(BOARD)),--numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder)
# What the compiled part of the package is made of.
NATIVE := $(wildcard $(addprefix esp_idf_app/,virtual_board/* components/policy_core/CMakeLists.txt \
	components/policy_core/src/* components/policy_core/include/policy_core/*))

.PHONY: setup run test lint format docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

run: setup
	$(BIN)/quant run --out $(RUN)

test: setup
	$(BIN)/python -m pytest --board $(BOARD) $(SHARED)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	git ls-files -z | xargs -0 $(BIN)/codespell
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The API reference, in build/api; without what is a test, is copied and not imported, or needs PyTorch to be imported.
docs: setup
	$(BIN)/pdoc --docformat google --no-show-source --output-directory build/api quant \
		'!quant.testing.suites' '!quant.commands.project_template' '!quant.worlds.extractor' '!quant.worlds.sb3_env'

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
