# The commands a person types. Each does its own set-up.
#
#   make demo [ORDERS=1000] [RATE=n] [SEED=n] [KILL=n]   the order saga on real Kafka and Postgres, and its audit
#   make demo STACK=docker                               the same on the images, as compose/ deploys them
#   make up, make down [STACK=docker]                    the same system, left running; stopped
#   make test, make check                                all tests, all lints; STACK=docker has Kafka and Postgres in containers
#   make test-containers                                 the images as containers: needs a Docker engine
#   make faults [MINUTES=3] [SEED=n]                     a seeded stream of faults while orders run, and what must hold
#   make fuzz-http [EXAMPLES=50] [SEED=n]                made-up requests to the OpenAPI documents of the services
#   make failover [TRIALS=20] [LEASE=5s]                 how long others wait when something dies: medians
#   make bench [ONLY=relay,step] [ROUNDS=3]              what it costs: rates and latencies beside yardsticks, in a release build
#   make model [QUICK=1]                                 the model checker over the production functions; a minute of it
#   make planted [FAULTS=0]                              bugs are planted, and tests, model and fault runs must find them: hours

.PHONY: demo up down test test-containers images check faults fuzz-http failover bench model planted setup build

compose := docker compose -f compose/compose.yaml
bin := $(or $(CARGO_TARGET_DIR),target)/debug

ifeq ($(STACK),docker)
demo: setup images
	cargo build --package orderctl
	$(bin)/orderctl demo

up:
	$(compose) up --build --wait
	@echo "TOKEN=$$($(compose) --profile tools run --rm --build -T orderctl token)"

down:
	$(compose) down
else
demo: setup build
	$(bin)/orderctl demo

up: setup build
	$(bin)/orderctl up

down: setup build
	$(bin)/orderctl down
endif

# One stack for all tests: the one that is given or runs, or one that ends with them.
test: setup
	cargo build --workspace --all-targets
	$(bin)/devstack exec -- cargo test --workspace --exclude container-tests

# The images as containers; without a Docker engine these are skipped, or fail if REQUIRE_DOCKER=1.
test-containers: setup
	if docker info >/dev/null 2>&1; then $(MAKE) images; fi
	cargo build --package devstack
	cargo test --package container-tests -- --nocapture

images:
	$(compose) --profile tools build secrets order-topics payment-topics inventory-topics orderctl

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	scripts/audit

faults: setup build
	$(bin)/orderctl faults

fuzz-http: setup build
	scripts/fuzz-http

failover: setup build
	$(bin)/orderctl failover

# Not the whole workspace: its tests plant failpoints in the toolkit, which a release build refuses.
bench: setup
	cargo build --release --bins --package bench --package order --package payment --package inventory
	$(or $(CARGO_TARGET_DIR),target)/release/bench

model: setup build
	$(bin)/model --threads 2 $(if $(QUICK),--quick)

planted: setup
	scripts/planted

setup:
	@scripts/setup

build:
	cargo build --workspace --bins
