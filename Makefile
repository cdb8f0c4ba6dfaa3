# SPDX-License-Identifier: Apache-2.0
# Three words for contributors: `make check` looks, `make fix` repairs what can be repaired, `make test` runs the tests.
PYTHON ?= python
TYPECHECK := build/typecheck

.PHONY: check types fix test

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	@$(MAKE) --no-print-directory types

# mypy does not follow setuptools' package-dir mapping, so it reads an installed copy instead of the checkout.
types:
	rm -rf build
	$(PYTHON) -m pip install --quiet --no-deps --target $(TYPECHECK) .
	cd $(TYPECHECK) && $(PYTHON) -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p graphprune

fix:
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

test:
	$(PYTHON) -P -m pytest
