# Everything a checkout needs: `make` lists it. Each target makes the virtual environment, if there is none, and installs
# into it what the target needs; nothing outside this folder is touched.
#
# The install is editable: Python runs the sources as they stand here, with the compiled modules beside them. So nothing
# shadows anything, and only a change to what is compiled, or to the list of requirements, installs again.

PYTHON ?= python3
VENV ?= .venv
VENV_ALL ?= .venv-all
RUN := $(VENV)/bin/python
COMPILED := setup.py pyproject.toml $(wildcard src/*.c src/*.h src/*.pyx src/*.pxd src/*/*.pxd)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all install-all frameworks check asan valgrind fuzz bench clean

help:
	@echo 'make demo   train on real images from HDF5 files, and compare the reading (2 minutes, 400 MB in demo-data/)'
	@echo 'make test   run the tests; those of frameworks that are not installed are skipped'
	@echo 'make test-all   run the tests of all frameworks and the examples, in $(VENV_ALL) (3 GB, 10 minutes)'
	@echo 'make check  the wider checks: C tests under sanitizers, h5py'"'"'s own tests through h5fast (10 minutes)'
	@echo 'make asan   the tests, with C built anew under AddressSanitizer and UndefinedBehaviorSanitizer (an hour)'
	@echo 'make fuzz   build the fuzz targets, with clang; tests/c/keep_corpus.py keeps what they find'
	@echo 'make bench  measure (20 minutes, 2.2 GB in benchmarks/data/ or $$H5FAST_BENCH_DATA)'
	@echo 'make clean  remove what these made, the virtual environments included'
	@echo
	@echo 'PYTHON=python3.12 picks the interpreter of a new virtual environment; it must be 3.10 or newer.'

demo: $(VENV)/installed-demo
	@echo '== training on real images; data and results in demo-data/'
	@$(RUN) examples/digits.py --data demo-data

test: $(VENV)/installed-test
	@echo '== running the tests'
	@$(RUN) -m pytest

# TensorFlow holds h5py back, so all frameworks together have an environment of their own: `make test` keeps the newest h5py.
test-all:
	@$(MAKE) --no-print-directory VENV=$(VENV_ALL) frameworks

install-all:
	@$(MAKE) --no-print-directory VENV=$(VENV_ALL) $(VENV_ALL)/installed-test-all

frameworks: $(VENV)/installed-test-all
	@echo '== running the tests of the frameworks, and the examples'
	@$(RUN) -m pytest tests/frameworks --timeout 300

check: $(VENV)/installed-test
	@echo '== running the C tests under sanitizers'
	@$(MAKE) --no-print-directory -C tests/c sanitize tsan
	@echo "== running h5py's own tests, as they are and through h5fast"
	@$(RUN) tests/h5py_suite.py

# The Python tests with the extension modules built anew, beside the others: what C does wrong ends the run there.
ASAN := build/asan
asan: $(VENV)/installed-test
	@echo '== building under AddressSanitizer and UndefinedBehaviorSanitizer'
	@H5FAST_SANITIZE=address,undefined $(RUN) setup.py --quiet build_ext --build-lib $(ASAN) --build-temp $(ASAN)-objects
	@$(RUN) -c "import shutil; shutil.copytree('h5fast', '$(ASAN)/h5fast', ignore=shutil.ignore_patterns('*.so', '__pycache__'), \
		dirs_exist_ok=True)"
	@echo '== running the tests of everything that runs C'
	@LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so)" PYTHONPATH=$(CURDIR)/$(ASAN) \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:handle_segv=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(VENV)/bin/pytest --timeout 900 -p no:cacheprovider --ignore tests/frameworks --ignore tests/test_structure.py --ignore tests/test_decoders_c.py

valgrind:
	@$(MAKE) --no-print-directory -C tests/c valgrind

fuzz:
	@$(MAKE) --no-print-directory -C tests/c fuzz

bench: $(VENV)/installed-test
	@echo '== making the files to measure on, where they are missing'
	@$(RUN) benchmarks/make_data.py
	@echo '== measuring'
	@$(RUN) benchmarks/gather_table.py
	@$(RUN) benchmarks/slices.py
	@$(RUN) benchmarks/open_one_row.py
	@$(RUN) benchmarks/index_million.py
	@$(RUN) benchmarks/cold_cache.py
	@$(RUN) benchmarks/decoders.py
	@$(RUN) benchmarks/loader_epochs.py
	@$(RUN) benchmarks/loader_growth.py
	@$(RUN) benchmarks/loader_runs.py
	@$(RUN) benchmarks/file_tree.py
	@$(RUN) benchmarks/writing.py
	@$(RUN) benchmarks/packing.py images
	@$(RUN) benchmarks/repacking.py
	@$(RUN) -m pytest benchmarks

# One stamp for each extra of pyproject.toml.
$(VENV)/installed-%: $(COMPILED) | $(RUN)
	@echo "== building h5fast, and installing it with what '$*' needs into $(VENV) (a minute or two)"
	@$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(RUN):
	@command -v $(PYTHON) >/dev/null || { echo 'h5fast needs Python 3.10 or newer, and there is no $(PYTHON)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "h5fast needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=…" >&2; exit 1; }
	@command -v $(CC) >/dev/null || { echo 'h5fast needs a C compiler, and there is no $(CC)' >&2; exit 1; }
	@echo '== making the virtual environment $(VENV) with $(PYTHON)'
	@$(PYTHON) -m venv $(VENV)

clean:
	rm -rf build dist h5fast.egg-info demo-data benchmarks/data .pytest_cache .hypothesis .benchmarks $(VENV) $(VENV_ALL)
	rm -f h5fast/*.so src/*_cy.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
