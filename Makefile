# The commands to type. Each does its own set-up.
#
#   make demo [ORDERS=1000] [RATE=n] [SEED=n] [KILL=n]
#                        the order saga on real Kafka and Postgres, and its audit
#   make demo STACK=docker
#                        the same with the images, deployed as in compose/
#   make up, make down [STACK=docker]
#                        starts the same system and leaves it running; stops it
#   make test, make check
#                        all tests, all lints; STACK=docker runs Kafka and Postgres in containers
#   make test-containers
#                        tests of the images as containers; needs a Docker engine
#   make faults [MINUTES=3] [SEED=n]
#                        a seeded series of faults while orders run, and a check of what must hold
#   make fuzz-http [EXAMPLES=50] [SEED=n]
#                        generated requests against the services' OpenAPI documents
#   make failover [TRIALS=20] [LEASE=5s]
#                        time until work goes on after something dies: medians
#   make bench [ONLY=relay,step] [ROUNDS=3]
#                        rates and latencies beside yardsticks, in a release build
#   make model [QUICK=1]
#                        the model checker over the production functions; QUICK takes a minute
#   make planted [FAULTS=0]
#                        plants bugs that tests, model and fault runs must find; takes hours

.PHONY: demo up down test test-containers images check faults fuzz-http failover bench model planted
.PHONY: setup build

# librdkafka is compiled by make, by default at -O2, which takes two CPU minutes of a first demo.
# This halves that for debug builds. Setting CFLAGS itself would do so too, but cargo would rebuild
# other crates whenever it appears or disappears.
cargo := GNUMAKEFLAGS='CFLAGS=-O1\ -g0 CXXFLAGS=-O0\ -g0' cargo

compose := docker compose -f compose/compose.yaml
bin := $(or $(CARGO_TARGET_DIR),target)/debug

services := $(shell sed -n 's/^name = "\(.*\)"$$/\1/p' services.toml)
# Only what the demo runs: without the tests, the model checker, the bench and testcontainers.
shop := --package orderctl $(services:%=--package %)

ifeq ($(STACK),docker)
demo: setup images
	$(cargo) build --package orderctl --features docker
	$(bin)/orderctl demo

up:
	$(compose) up --build --wait
	@echo "TOKEN=$$($(compose) --profile tools run --rm --build -T orderctl token)"

down:
	$(compose) down
else
demo: setup
	$(cargo) build --bins $(shop)
	$(bin)/orderctl demo

up: setup
	$(cargo) build --bins $(shop)
	$(bin)/orderctl up

down: setup
	$(cargo) build --bins $(shop)
	$(bin)/orderctl down
endif

# One stack for all tests: the one given in the environment, one that already runs, or a new one
# that ends with the tests.
test: setup build
	$(bin)/devstack exec -- cargo test --workspace --exclude container-tests

# Without a Docker engine these tests are skipped, or fail if REQUIRE_DOCKER=1.
test-containers: setup
	if docker info >/dev/null 2>&1; then $(MAKE) images; fi
	$(cargo) build --package devstack --features docker
	$(cargo) test --package container-tests -- --nocapture

images:
	$(compose) --profile tools build secrets $(services:%=%-topics) orderctl

check: setup
	$(cargo) fmt --all --check
	$(cargo) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	scripts/services --check
	scripts/planted --check
	scripts/audit

faults: setup build
	$(bin)/orderctl faults

fuzz-http: setup build
	scripts/fuzz-http

failover: setup build
	$(bin)/orderctl failover

# Not the whole workspace: its tests turn on the toolkit's failpoints, and a release build refuses
# those.
bench: setup
	cargo build --release --bins --package bench $(services:%=--package %)
	$(or $(CARGO_TARGET_DIR),target)/release/bench

model: setup build
	$(bin)/model --threads 2 $(if $(QUICK),--quick)

planted: setup
	scripts/planted

setup:
	@scripts/setup

# All targets, as for the tests: with fewer, dependencies get other features and are rebuilt.
build:
	$(cargo) build --workspace --all-targets
