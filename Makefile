# make deploy            a Ray cluster and a healthy Coordinator on this machine
# make help              the rest
#
# ARGS goes to ansible-playbook: make deploy ARGS="-i inventory/mine --check".
# seedcore_config=organism.yaml and seedcore_extra_requirements=PATH are variables of the deployment, with paths from here.

PYTHON ?= python3
VENV := .venv
ARGS ?=

# make means this checkout, whatever a shell says to Ansible, Python, pip, uv and Ray: the file lists what is not passed on.
foreign := roles/deployment/files/foreign_environment.txt
dropped := $(shell sed -n 's/^everywhere //; s/\*$$/%/; /^[A-Z]/p' $(foreign))
kept := $(shell sed -n 's/\*$$/%/; s/^!//p' $(foreign))
$(foreach name,$(filter-out $(kept),$(filter $(dropped),$(.VARIABLES))),$(if $(filter environment,$(origin $(name))),$(eval unexport $(name))))
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible starts in UTF-8 alone; ssh brings locales along that a machine does not have, cron and containers have C.
ifneq ($(shell locale charmap 2>&1),UTF-8)
export LC_ALL := C.UTF-8
endif
# Whom the machine trusts, uv trusts.
export UV_SYSTEM_CERTS ?= true

# Each as JSON, so that a blank in a path is one. Relative paths start here, but a prefix has to be absolute.
given = -e '{"$(1)": "$(subst ','\'',$(2))"}'
variables := $(strip \
  $(foreach name,seedcore_config seedcore_extra_requirements ray_wheelhouse,$(if $($(name)),$(call given,$(name),$($(name))))) \
  $(if $(ray_prefix),$(call given,ray_prefix,$(if $(filter /%,$(ray_prefix)),,$(CURDIR)/)$(ray_prefix))))
# Ansible writes there, too, and ends with a traceback where it cannot.
home_fault = $(shell [ -z "$$HOME" ] || [ -w "$$HOME" ] || echo "HOME is $$HOME, and nothing can be written there. Name a directory that can hold files: HOME=PATH make $@")
playbook = $(if $(home_fault),$(error $(home_fault)))$(VENV)/bin/ansible-playbook $(variables) $(ARGS)

# Processes of pytest for the tiers unit, ansible and integration.
WORKERS ?= 2
# Tiers of tests by their names in scripts/tier_list.py; with ARGS, pytest runs those and nothing else.
# exec: make passes a signal on to the process that it has started, which would be a shell otherwise.
tiers = @VENV=$(VENV) exec $(VENV)/bin/python -m scripts.tiers --workers $(WORKERS)
pytest_or_tiers = $(if $(ARGS),$(VENV)/bin/pytest $(ARGS),$(tiers))

.PHONY: deploy status teardown quick check test test-all shell unit ansible integration deploy-test containers browser lint sanity collection bench chaos soak molecule lock wheelhouse docs monitoring help

deploy: $(VENV)/deploy ## Ray, the release and a healthy Coordinator; a second run changes nothing
	@$(playbook) deploy.yml

status: $(VENV)/deploy ## check the status; green only if the Coordinator is really healthy
	@$(playbook) playbooks/status.yml

teardown: $(VENV)/deploy ## remove the deployment and all of its data, without asking
	@$(playbook) -e teardown_confirmed=yes playbooks/teardown.yml

quick: $(VENV)/dev ## ruff, mypy and the tests of the library, or one test: make quick ARGS=tests/unit/core/test_task.py::test_a_type_is_enough
	$(pytest_or_tiers) $(if $(ARGS),,quick)

check: $(VENV)/dev ## the same with all linters, the integration tests and one deployment: run it before you propose a change
	$(tiers) check

test: $(VENV)/dev ## the full suite of one machine, in two lanes; docs/testing.md
	$(tiers) test

test-all: $(VENV)/dev ## the same, then every other scenario of molecule and ten minutes of load
	$(tiers) test-all

shell: ## a shell with the environment of the deployment on this machine, or of the one below ray_prefix=PATH
	@.ci/shell $(abspath $(or $(ray_prefix),$(HOME)/.local/share/seedcore))

unit: $(VENV)/dev ## tests of the library, without Ray
	$(pytest_or_tiers) $(if $(ARGS),,unit)

ansible: $(VENV)/dev ## tests of the roles and plugins, without a deployment
	$(pytest_or_tiers) $(if $(ARGS),,ansible)

integration: $(VENV)/dev ## tests with a Ray of their own; ARGS="--keep-ray PATH::TEST" keeps it if the test fails
	$(pytest_or_tiers) $(if $(ARGS),,integration alone-integration)

deploy-test: $(VENV)/dev ## the playbooks themselves, on this machine, in a directory of their own
	$(pytest_or_tiers) $(if $(ARGS),,deploy-test)

lint: $(VENV)/dev ## ruff, mypy, import-linter, yamllint, ansible-lint
	$(tiers) lint

sanity: $(VENV)/deploy ## ansible-test sanity, on the collection as it is installed
	$(if $(ARGS),@VENV=$(VENV) exec .ci/sanity $(ARGS),$(tiers) sanity)

collection: $(VENV)/deploy ## the collection in dist/, with the library in it: install it with ansible-galaxy
	@VENV=$(VENV) exec .ci/collection dist

wheelhouse: $(VENV)/deploy ## dist/wheelhouse.tar, for hosts that reach no package index: make deploy ray_wheelhouse=dist/wheelhouse.tar
	@VENV=$(VENV) EXTRA="$(seedcore_extra_requirements)" exec .ci/wheelhouse dist $(ARGS)

docs: $(VENV)/dev ## docs/reference from the code, and the documentation as a site in dist/site
	$(VENV)/bin/python -m scripts.dashboard
	$(VENV)/bin/python -m scripts.packages
	$(VENV)/bin/python -m scripts.reference
	$(VENV)/bin/mkdocs build --quiet

soak: $(VENV)/dev ## ten minutes of load while organs are killed, every task accounted for (ARGS="--minutes 60")
	$(VENV)/bin/python -m benchmarks.soak $(ARGS)

chaos: $(VENV)/dev ## an hour of faults, one by one, against a deployment; what it says is held against what it does (ARGS="--minutes 10 --seed 7")
	@VENV=$(VENV) exec .ci/chaos $(ARGS)

bench: $(VENV)/bench ## ratios against raw Ray, measured in one run; see docs/benchmarks.md
	$(VENV)/bin/python -m benchmarks $(ARGS)

containers: $(VENV)/dev ## the same as molecule, but no fault where there is no Docker: the last line says so
	$(tiers) containers

browser: $(VENV)/dev ## the page in a real browser; where there is none the last line says so
	$(pytest_or_tiers) $(if $(ARGS),,browser)

monitoring: $(VENV)/dev ## a real Prometheus, its alerts, and the dashboard; where there is none the last line says so
	$(pytest_or_tiers) $(if $(ARGS),,monitoring)

molecule: $(VENV)/dev ## the roles on hosts with systemd (needs Docker, or root to start it)
	@VENV=$(VENV) exec molecule/run $(ARGS)

lock: $(VENV)/deploy ## make the lists with hashes anew, from pyproject.toml and requirements/*.in
	$(compile) pyproject.toml --output-file roles/seedcore/files/requirements.txt
	$(compile) requirements/ray.in --constraint roles/seedcore/files/requirements.txt --output-file roles/ray/files/requirements.txt
	$(compile) requirements/tools.in --output-file roles/ray/files/tools.txt
	$(compile) pyproject.toml --group dev --constraint roles/seedcore/files/requirements.txt --output-file requirements/dev.txt
	$(compile) --group deploy --constraint requirements/dev.txt --output-file requirements/deploy.txt
	$(compile) --group molecule --constraint requirements/dev.txt --output-file requirements/molecule.txt
	$(compile) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt

compile = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(ARGS)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

# What the controller needs, from the lists with hashes. The directory is made anew if it is not complete, or was moved.
ifneq ($(shell sh .ci/intact $(VENV)),intact)
.PHONY: $(VENV)/deploy
endif
$(VENV)/deploy: requirements/deploy.txt
	@PYTHON="$(PYTHON)" sh .ci/venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --requirement $<
	@touch $@

$(VENV)/dev: requirements/dev.txt pyproject.toml $(VENV)/deploy
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --require-hashes --requirement $<
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/bench: requirements/bench.txt $(VENV)/dev
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --require-hashes --requirement $<
	@touch $@
