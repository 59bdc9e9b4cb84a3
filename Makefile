# Each target is a script in scripts/, which does the set-up it needs: nothing has to run first.
.DEFAULT_GOAL := help
.PHONY: help demo test bench lint format sanitize fuzz torture docs wheel test-wheels clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## build the library and show what it does
	@scripts/demo.sh

test: ## build everything and run every test (PYTEST_ARGS="-k save", CTEST_ARGS="-R Header")
	@scripts/test.sh

bench: ## compare with the reference, other loaders and the machine's limits (BENCH_ARGS="--case open read")
	@scripts/bench.sh

lint: ## clang-format, the layers of csrc, ruff and mypy; changes nothing
	@scripts/lint.sh

format: ## format the C++ and Python sources in place
	@scripts/format.sh

sanitize: ## the C++ tests under sanitizers (SANITIZE=thread)
	@scripts/sanitize.sh

fuzz: ## look for bad input that gets through, a minute with each fuzzer (FUZZ_SECONDS=600, FUZZ_COVERAGE=1)
	@scripts/fuzz.sh

torture: ## the long form of the tests with kills, faults, crowds and endless repetition (ten minutes)
	@scripts/torture.sh

docs: ## build the documentation into build/site
	@scripts/docs.sh

wheel: ## build a wheel into dist/, or one for several releases of torch (TORCH="2.11.0 2.13.0")
	@scripts/wheel.sh $(TORCH)

test-wheels: ## build wheels for several releases of torch, and try each with each (TORCH="2.11.0 2.13.0"; half an hour)
	@scripts/test_wheels.sh $(TORCH)

clean: ## delete what was built (not .venv, nor the model that was downloaded)
	@scripts/clean.sh

distclean: ## delete .venv, too, and the model
	@scripts/clean.sh all
