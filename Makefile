# Everything on a fresh machine: "make demo" runs a study and opens the app, "make test" runs the tests.
PYTHON ?= python3
# Which build of torch: see "Which torch" in README.md.
TORCH ?= torch torchvision
PORT ?= 8501

VENV := .venv
APP := .venv-app
BIN := $(VENV)/bin

.PHONY: demo study app test browser lint clean

demo: study
	$(BIN)/kdpipe app --port $(PORT)

study: $(VENV)/.precompute
	$(BIN)/kdpipe studies/digits.toml

# The app alone, on the committed artifacts: no torch.
app: $(APP)/.ready
	$(APP)/bin/streamlit run Home.py --server.port $(PORT)

test: $(VENV)/.dev $(APP)/.ready browser lint
	KDPIPE_APP_PYTHON=$(CURDIR)/$(APP)/bin/python $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

browser: $(VENV)/.dev
	$(BIN)/python tests/browser.py

$(VENV)/.precompute: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e ".[precompute]"
	touch $@

$(VENV)/.dev: $(VENV)/.precompute
	$(BIN)/pip install --quiet -e ".[precompute,dev]"
	touch $@

$(APP)/.ready: requirements.txt
	$(PYTHON) -m venv $(APP)
	$(APP)/bin/pip install --quiet -r requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(APP) cache weights
