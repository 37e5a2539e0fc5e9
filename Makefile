# make deploy            a Ray cluster and a healthy Coordinator on this machine
# make help              all other targets
#
# ARGS are extra arguments of ansible-playbook: make deploy ARGS="-i inventory/mine --check".
# seedcore_config=organism.yaml and seedcore_extra_requirements=PATH set variables of the deployment; relative paths start here.

PYTHON ?= python3
VENV := .venv
ARGS ?=

# make works on this checkout, whatever the environment sets for Ansible, Python, pip, uv and Ray: drop the listed variables.
foreign := roles/deployment/files/foreign_environment.txt
dropped := $(shell sed -n 's/^everywhere //; s/\*$$/%/; /^[A-Z]/p' $(foreign))
kept := $(shell sed -n 's/\*$$/%/; s/^!//p' $(foreign))
$(foreach name,$(filter-out $(kept),$(filter $(dropped),$(.VARIABLES))),$(if $(filter environment,$(origin $(name))),$(eval unexport $(name))))
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible requires UTF-8, but ssh may pass on a locale that the machine lacks, and cron and containers use C.
ifneq ($(shell locale charmap 2>&1),UTF-8)
export LC_ALL := C.UTF-8
endif
# Let uv trust the certificate authorities that the machine trusts.
export UV_SYSTEM_CERTS ?= true

# Pass each variable as JSON, so that a path may contain blanks. Relative paths start here; the prefix must be absolute.
given = -e '{"$(1)": "$(subst ','\'',$(2))"}'
variables := $(strip \
  $(foreach name,seedcore_config seedcore_extra_requirements ray_wheelhouse,$(if $($(name)),$(call given,$(name),$($(name))))) \
  $(if $(ray_prefix),$(call given,ray_prefix,$(if $(filter /%,$(ray_prefix)),,$(CURDIR)/)$(ray_prefix))))
# Ansible writes to HOME and ends with a traceback if it cannot.
home_fault = $(shell [ -z "$$HOME" ] || [ -w "$$HOME" ] || echo "HOME is $$HOME, which is not writable. Set it to a writable directory: HOME=PATH make $@")
playbook = $(if $(home_fault),$(error $(home_fault)))$(VENV)/bin/ansible-playbook $(variables) $(ARGS)

# Processes of pytest for the tiers unit, ansible and integration.
WORKERS ?= 2
# Tiers of tests by their names in scripts/tier_list.py; with ARGS, pytest runs with these arguments instead.
# exec: make signals only the process that it has started, which would otherwise be a shell.
tiers = @VENV=$(VENV) exec $(VENV)/bin/python -m scripts.tiers --workers $(WORKERS)
pytest_or_tiers = $(if $(ARGS),$(VENV)/bin/pytest $(ARGS),$(tiers))

.PHONY: deploy status doctor teardown quick check test test-all shell unit ansible integration deploy-test containers browser lint sanity collection bench chaos soak molecule lock ray-lists wheelhouse docs monitoring help

deploy: $(VENV)/deploy ## install Ray and the release and bring up a healthy Coordinator; a second run changes nothing
	@$(playbook) deploy.yml

status: $(VENV)/deploy ## check the status; succeeds only if the Coordinator is healthy
	@$(playbook) playbooks/status.yml

doctor: $(VENV)/deploy ## say what differs from the last green run, how the Coordinator is, and what would stop a deployment
	@$(playbook) playbooks/doctor.yml

teardown: $(VENV)/deploy ## remove the deployment and all of its data, without asking
	@$(playbook) -e teardown_confirmed=yes playbooks/teardown.yml

# These tests wait more than they compute.
quick unit: WORKERS = 4

quick: $(VENV)/dev ## run ruff, mypy and the unit tests, or one test: make quick ARGS=tests/unit/core/test_task.py::test_a_type_is_enough
	$(pytest_or_tiers) $(if $(ARGS),,quick)

check: $(VENV)/dev ## run all linters, the unit, Ansible and integration tests and one deployment: run it before you propose a change
	$(tiers) check

test: $(VENV)/dev ## run the full test suite of one machine, see docs/testing.md
	$(tiers) test

test-all: $(VENV)/dev ## run make test, then every other molecule scenario, twelve broken releases, and ten minutes of load
	$(tiers) test-all

shell: ## start a shell with the environment of the deployment on this machine, or of the one in ray_prefix=PATH
	@.ci/shell $(abspath $(or $(ray_prefix),$(HOME)/.local/share/seedcore))

unit: $(VENV)/dev ## run the tests of the library that need no Ray
	$(pytest_or_tiers) $(if $(ARGS),,unit)

ansible: $(VENV)/dev ## run the tests of the roles and plugins that need no deployment
	$(pytest_or_tiers) $(if $(ARGS),,ansible)

integration: $(VENV)/dev ## run the tests that start Ray; ARGS="--keep-ray PATH::TEST" keeps it running if the test fails
	$(pytest_or_tiers) $(if $(ARGS),,integration alone-integration)

deploy-test: $(VENV)/dev ## test the playbooks on this machine, in a temporary directory
	$(pytest_or_tiers) $(if $(ARGS),,deploy-test)

lint: $(VENV)/dev ## run ruff, mypy, import-linter, yamllint and ansible-lint
	$(tiers) lint

sanity: $(VENV)/deploy ## run ansible-test sanity on the installed collection
	$(if $(ARGS),@VENV=$(VENV) exec .ci/sanity $(ARGS),$(tiers) sanity)

collection: $(VENV)/deploy ## build the collection with the library into dist/, for ansible-galaxy
	@VENV=$(VENV) exec .ci/collection dist

wheelhouse: $(VENV)/deploy ## build dist/wheelhouse.tar for hosts without a package index: make deploy ray_wheelhouse=dist/wheelhouse.tar
	@VENV=$(VENV) EXTRA="$(seedcore_extra_requirements)" ENVIRONMENTS='$(seedcore_environments)' exec .ci/wheelhouse dist $(ARGS)

docs: $(VENV)/dev ## generate docs/reference from the code and build the documentation site in dist/site
	$(VENV)/bin/python -m scripts.dashboard
	$(VENV)/bin/python -m scripts.packages
	$(VENV)/bin/python -m scripts.reference
	$(VENV)/bin/mkdocs build --quiet

soak: $(VENV)/dev ## load an organism for ten minutes under faults, and account for every task (ARGS="--minutes 60", ARGS=--durable)
	$(VENV)/bin/python -m benchmarks.soak $(ARGS)

chaos: $(VENV)/dev ## inject faults into a deployment for an hour and check its status and answers (ARGS="--minutes 10 --seed 7")
	@VENV=$(VENV) exec .ci/chaos $(ARGS)

bench: $(VENV)/bench ## measure ratios to raw Ray in one run, see docs/benchmarks.md
	$(VENV)/bin/python -m benchmarks $(ARGS)

containers: $(VENV)/dev ## run the default molecule scenario; without Docker it is skipped, not failed
	$(tiers) containers

browser: $(VENV)/dev ## test the status page in a browser; skipped without Chromium
	$(pytest_or_tiers) $(if $(ARGS),,browser)

monitoring: $(VENV)/dev ## test the alerts and the dashboard with a Prometheus; skipped without one
	$(pytest_or_tiers) $(if $(ARGS),,monitoring)

molecule: $(VENV)/dev ## run the molecule scenarios on hosts with systemd (needs Docker, or root to start it)
	@VENV=$(VENV) exec molecule/run $(ARGS)

lock: $(VENV)/deploy ## regenerate the requirement lists with hashes from pyproject.toml and requirements/*.in
	$(compile) pyproject.toml --output-file roles/seedcore/files/requirements.txt
	$(compile) pyproject.toml --extra postgres --constraint roles/seedcore/files/requirements.txt --output-file roles/seedcore/files/postgres.txt
	$(compile) requirements/ray.in --constraint roles/seedcore/files/requirements.txt --output-file roles/ray/files/requirements.txt
	$(compile) requirements/tools.in --output-file roles/ray/files/tools.txt
	$(compile) pyproject.toml --group dev --constraint roles/seedcore/files/requirements.txt --output-file requirements/dev.txt
	$(compile) --group deploy --constraint requirements/dev.txt --output-file requirements/deploy.txt
	$(compile) --group molecule --constraint requirements/dev.txt --output-file requirements/molecule.txt
	$(compile) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt

ray-lists: $(VENV)/deploy ## write the lists for another Ray into dist, for playbooks/upgrade_ray.yml: make ray-lists RAY=2.59.0
	@[ -n "$(RAY)" ] || { echo "name the version: make ray-lists RAY=2.59.0" >&2; exit 2; }
	@mkdir -p dist/ray-$(RAY)
	@cp roles/seedcore/files/requirements.txt roles/seedcore/files/postgres.txt dist/ray-$(RAY)
	@cp roles/ray/files/requirements.txt dist/ray-$(RAY)/ray.txt
	@echo 'ray[default]==$(RAY)' >dist/ray-$(RAY)/ray.in
	@$(compile) pyproject.toml --override dist/ray-$(RAY)/ray.in --output-file dist/ray-$(RAY)/requirements.txt
	@$(compile) pyproject.toml --extra postgres --override dist/ray-$(RAY)/ray.in --constraint dist/ray-$(RAY)/requirements.txt \
	  --output-file dist/ray-$(RAY)/postgres.txt
	@$(compile) dist/ray-$(RAY)/ray.in --constraint dist/ray-$(RAY)/requirements.txt --output-file dist/ray-$(RAY)/ray.txt
	@printf '%s\n' 'ray_version: "$(RAY)"' 'ray_requirements: "$(CURDIR)/dist/ray-$(RAY)/ray.txt"' \
	  "seedcore_requirements: \"$(CURDIR)/dist/ray-$(RAY)/{{ 'postgres' if seedcore_inbox | string is search('://') else 'requirements' }}.txt\"" \
	  >dist/ray-$(RAY)/variables.yml
	@echo "Next: ansible-playbook playbooks/upgrade_ray.yml -e @dist/ray-$(RAY)/variables.yml ..., and then keep these variables in the inventory."

compile = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock" $(ARGS)

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

# Install the controller's packages from the lists with hashes. Recreate a directory that is incomplete or was moved.
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
