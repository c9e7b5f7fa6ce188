# The commands of this repository. `make help` explains them.
PYTHON ?= python3
BIN := .venv/bin
RUNS_DIR ?= .tidemill
LENDING := $(RUNS_DIR)/demo/lending.csv

CONTROL_TESTS := tests/unit/core tests/unit/gate tests/unit/components tests/unit/commands tests/unit/register \
	tests/unit/report tests/unit/targets tests/unit/checking tests/pipelines tests/integration
REMOTE_TESTS := tests/vertex tests/kubernetes tests/conformance tests/manifests tests/cloudbuild
VALIDATION_TESTS := tests/unit/validate
TENSORFLOW_TESTS := tests/unit/core_arrow tests/unit/synthetic tests/unit/problems tests/unit/ingest tests/unit/transform tests/unit/train \
	tests/unit/tune tests/unit/compress tests/unit/evaluate
SERVING_TESTS := tests/unit/serving tests/unit/rehearse tests/unit/deploy
BEAM_TESTS := tests/beam
IMAGE_TESTS := tests/images
# The longest first, so that two at a time end about together.
TESTS := test-images test-control test-tensorflow test-remote test-beam test-serving test-validation
PYTEST := -m pytest -q --cov --cov-report=

export UV_COMPILE_BYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test $(TESTS) lint format goldens catalogue bench images clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1mmake %-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Set up the environments from uv.lock: .venv and .venvs/* (2 to 6 minutes the first time, seconds after)
	@$(PYTHON) .ci/setup.py

demo: setup $(LENDING) ## Train, judge, release and ask a model of invented loans (1 to 3 minutes; again: under 30 seconds)
	@$(BIN)/tidemill run pipelines/problems/lending --source $(LENDING) --runs-dir $(RUNS_DIR)

$(LENDING): components/tidemill/synthetic/lending.py
	@echo "demo: inventing 20,000 loan applications"
	@mkdir -p $(@D)
	@.venvs/tensorflow/bin/python -m tidemill.synthetic.lending --rows 20000 --output $@

test: setup ## Run every test, each in its environment, and check coverage (20 to 40 minutes)
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory -j2 --keep-going --output-sync=target $(TESTS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --include='components/*' --skip-covered --fail-under=90

test-control: ## Run the tests of the control environment alone (commands, pipelines, reports, whole runs)
	@COVERAGE_FILE=.coverage.control $(BIN)/python $(PYTEST) $(CONTROL_TESTS)

test-validation: ## Run the tests of the validation environment alone
	@COVERAGE_FILE=.coverage.validation .venvs/validation/bin/python $(PYTEST) $(VALIDATION_TESTS)

test-tensorflow: ## Run the tests of the tensorflow environment alone
	@COVERAGE_FILE=.coverage.tensorflow .venvs/tensorflow/bin/python $(PYTEST) $(TENSORFLOW_TESTS)

test-serving: ## Run the tests of the serving environment alone
	@COVERAGE_FILE=.coverage.serving .venvs/serving/bin/python $(PYTEST) $(SERVING_TESTS)

test-remote: ## Run the tests of Kubernetes, Vertex AI, manifests and Cloud Build (what needs root or Go skips without)
	@COVERAGE_FILE=.coverage.remote $(BIN)/python $(PYTEST) $(REMOTE_TESTS)

test-beam: ## Run the Beam stages on Flink (skips without Java)
	@COVERAGE_FILE=.coverage.beam .venvs/tensorflow/bin/python $(PYTEST) $(BEAM_TESTS)

test-images: ## Build the CPU images and try them: stages in their images, the pipeline in containers (needs root, podman)
	@COVERAGE_FILE=.coverage.images $(BIN)/python $(PYTEST) $(IMAGE_TESTS)

lint: setup ## Check format, lint rules, types and the architecture
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: ## Format the code and mend what lint can mend by itself
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

goldens: ## Compile every pipeline anew into tests/pipelines/goldens
	@$(BIN)/python tests/pipelines/test_goldens.py

catalogue: ## Renew components/README.md from the components' definitions
	@$(BIN)/python -m tidemill_pipelines.catalogue > components/README.md

bench: setup ## Measure: the taxi lifecycle, and each stage at 300 thousand and 1.5 million rows; kill a training 20 times (about 25 minutes)
	@$(BIN)/python tests/benchmarks/lifecycle.py
	@.venvs/tensorflow/bin/python tests/benchmarks/ingest.py
	@.venvs/validation/bin/python tests/benchmarks/validation.py
	@.venvs/tensorflow/bin/python tests/benchmarks/transform.py
	@.venvs/tensorflow/bin/python tests/benchmarks/training.py
	@.venvs/tensorflow/bin/python tests/benchmarks/kills.py --kills 20
	@.venvs/tensorflow/bin/python tests/benchmarks/evaluation.py
	@.venvs/serving/bin/python tests/benchmarks/serving.py
	@$(BIN)/python tests/benchmarks/images.py

images: ## Build the container images (IMAGES, REGISTRY, PUSH=1, CACHE, BASE, ENGINE; see containers/README.md) (about 6 minutes)
	@$(PYTHON) containers/build.py $(IMAGES)

clean: ## End the endpoints and remove .tidemill: every run, model and cache made here (problems and environments stay)
	@$(BIN)/tidemill endpoint down --all --runs-dir $(RUNS_DIR) 2>/dev/null || true
	rm -rf $(RUNS_DIR) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
