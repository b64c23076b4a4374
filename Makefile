# Two commands: `make demo` serves the page, `make test` runs every test.
HOST ?= 127.0.0.1
PORT ?= 7860
PYTHON ?= python3
DATA ?= data
VENV := .venv
BIN := $(VENV)/bin
NEWEST := build/newest
TRAVELLING := configuration_ser mfcc layers feature_extraction_ser backbones modeling_ser

.PHONY: demo test test-newest lint format results reproduce torture audit screenshots checkpoint-code checkpoint-cards clean

demo: $(VENV)/.installed
	GRADIO_SERVER_NAME=$(HOST) GRADIO_SERVER_PORT=$(PORT) $(BIN)/python app.py

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile

# Loads a pushed model with the newest torch and transformers and without torchaudio: gigabytes, so no part of `test`.
test-newest: $(VENV)/.installed-dev
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install -q torch transformers numpy safetensors
	$(NEWEST)/bin/pip freeze | grep -E "^(torch|transformers|huggingface_hub|numpy)=="
	! $(NEWEST)/bin/python -c "import torchaudio" 2>/dev/null
	SER_CLEAN_PYTHON=$(abspath $(NEWEST))/bin/python $(BIN)/python -m pytest tests/test_hub.py -k loads

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installed again only when the list of requirements changes.
$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@

# docs/results.md and its pictures, from the predictions and tables under results/ alone.
results: $(VENV)/.installed
	$(BIN)/python -m results.scoreboard

# Trains a protocol of results/protocols.yaml again and replaces its predictions; goes on where it was stopped.
reproduce: $(VENV)/.installed
	$(BIN)/python -m results.reproduce $(PROTOCOL) --data-dir $(DATA) $(if $(MODEL),--only $(MODEL))

# Tries to break it, for hours, and writes docs/reliability.md; `make test` runs a little of it.
torture: $(VENV)/.installed-dev
	$(BIN)/python -m torture --data-dir $(DATA) --write docs/reliability.md

# Known faults of the installed packages; asks the advisories' service.
audit: $(VENV)/.installed-dev
	$(BIN)/pip-audit

screenshots: $(VENV)/.installed-dev
	$(BIN)/python docs/screenshots.py

# A model's code lies beside its weights; after a change in those files, lay it there again.
checkpoint-code:
	for folder in checkpoints/*/; do cp $(TRAVELLING:%=ser_model/%.py) $$folder; done

# The cards of checkpoints/, from the predictions under results/.
checkpoint-cards: $(VENV)/.installed
	$(BIN)/python -m results.cards

clean:
	rm -rf $(VENV)
