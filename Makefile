# The only entry point. What takes more than a line is a script in testbed/.

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test unit lint e2e faults kill kill-operator chaos resume bench scale images generate sim pairs mutants mutants-operator long clean

# The first comment after a target's colon is its help.
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the main job on this machine: cluster, Azurite, two sessions, every blob compared (CLUSTER=current: your own cluster; SHARE=nfs: real NFS)
	@testbed/demo up

demo-down: ## removes what `make demo` left running
	@testbed/demo down

test: ## everything that proves the project
	@testbed/test

unit: ## the inner loop: tests that need no cluster
	@testbed/prerequisites
	@cargo test --locked --workspace

lint: ## formatting, clippy and shellcheck
	@testbed/prerequisites
	@testbed/lint

e2e: ## tests on a real node; FILTER=WORD runs those whose name has it
	@testbed/e2e $(FILTER)

faults: ## the product on real NFS in virtual machines, and its faults; FILTER=WORD runs those whose name has it
	@testbed/faults $(FILTER)

kill: ## kills uploaders at random instants and compares everything: ROUNDS=3000 SEED=NUMBER
	@testbed/trial kill --rounds $(or $(ROUNDS),3000) $(if $(SEED),--seed $(SEED))

kill-operator: ## stops the operator right before and right after every one of its writes, and looks at what is there in the end
	@BLOBFERRY_ALL_KILLS=1 testbed/api-tests operator_stopped

chaos: ## lives of sessions with operators behind a connection that drops, delays, repeats and fails requests: SEEDS="3 4 5"
	@FAULT_SEEDS="$(or $(SEEDS),3 4 5 6 7 8 9 10)" testbed/api-tests --chaos

resume: ## kills an uploader at 90 % of 10 GiB; counts what is sent and read again: MEBIBYTES=10240
	@testbed/trial resume --mebibytes $(or $(MEBIBYTES),10240)

bench: ## speed, processor time and memory against the ceiling, AzCopy and rclone
	@testbed/bench

scale: ## the operator with many sessions: memory, processor time, requests, latency: SIZE=1000 IDLE=1
	@testbed/scale $(or $(SIZE),1000) $(or $(IDLE),1)

images: ## both images as docker archives; prints where they are
	@testbed/prerequisites root
	@testbed/images

generate: ## writes the generated manifests anew
	@testbed/prerequisites
	@testbed/generate

sim: ## searches for a history that breaks the uploader's invariant; HISTORIES=N, or SEED=N to show one
	@testbed/prerequisites
	@testbed/sim-search $(if $(SEED),--seed $(SEED),--histories $(or $(HISTORIES),100000))

pairs: ## crashes at every place of short sessions of the uploader, and at every pair of places
	@testbed/prerequisites
	@testbed/sim-search --pairs

mutants: ## breaks the uploader on purpose, and expects the search to see it
	@testbed/prerequisites
	@testbed/mutants

mutants-operator: ## breaks the operator on purpose, and expects its kills to see it
	@testbed/operator-mutants

long: ## lists the searches that take longer than a test may
	@echo "make kill ROUNDS=3000    20 min"
	@echo "make kill-operator       30 min"
	@echo "make chaos               12 min"
	@echo "make faults              40 min"
	@echo "make resume              5 min"
	@echo "make bench               10 min"
	@echo "make scale               5 min, SIZE=10000 25 min"
	@echo "make sim HISTORIES=1000000  30 min"
	@echo "make pairs               5 min"
	@echo "make mutants             40 min"
	@echo "make mutants-operator    15 min"

clean: ## removes build results and cached tools; ends the beds of demo and test
	@for bed in demo test test-api nfs; do testbed/bed down $$bed; done
	@cargo clean
	@rm -rf "$${BLOBFERRY_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/blobferry}"
