# Everything that is done with this project; `make help` lists it.
CLIENT ?=
ARGS ?=
SEEDS ?= 50
TARGET ?=
FUZZ_SECONDS ?= 60
IMAGE ?= dlog
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose) -f docker/compose.yml
# Public images; `make docker-base` makes stand-ins where they cannot be pulled.
RUST_IMAGE ?= $(shell docker image inspect dlog-base/rust >/dev/null 2>&1 && echo dlog-base/rust || echo rust:1.95-bookworm)
DEBIAN_IMAGE ?= $(shell docker image inspect dlog-base/debian >/dev/null 2>&1 && echo dlog-base/debian || echo debian:bookworm-slim)
.PHONY: docs compat-docker compat-table deb deb-test install-dev docker docker-base docker-base-clients docker-test docker-up docker-logs docker-down dashboards lost-clients help build run test check fmt lint protocol compat compat-smoke coverage figures bench traced portable sim fuzz kills bugs

help:           ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18
build:          ## build the release binary
	cargo build --release
run:            ## start a broker in dev mode
	cargo run --release
test: check     ## format, lint, and all tests
	cargo test --workspace
check:          ## format and lint, and that the fuzz targets compile
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo check --quiet --manifest-path tests/fuzz/Cargo.toml --all-targets --target-dir target/fuzz-check
protocol:       ## generate the protocol's code from protocol-spec/
	cargo run -q -p protocol-spec -- protocol-spec src
docs:           ## write the tables of docs/ that come from the code
	WRITE_DOCS=1 cargo test --test documents tables
figures: build  ## measure ready time, memory, partitions, groups and CPU per GB of the release binary
	cargo test --release --test figures -- --ignored --nocapture --test-threads 1
bench: build    ## dlog and Apache Kafka in turn under the same load; ARGS=--quick for less
	python3 benches/compare.py $(ARGS)
compat: build   ## real clients against the broker; CLIENT=name runs one; CLIENT=edges compares edge cases with Apache Kafka
	python3 compat-tests/run.py $(CLIENT) $(ARGS)
compat-docker: docker  ## the same in containers, one per client; CLIENT=name runs one, ARGS="--kills 5 --seconds 20" makes it short
	DLOG_IMAGE=$(IMAGE) compat-tests/docker.sh $(if $(CLIENT),--client $(CLIENT)) $(ARGS)
compat-table:   ## docs/clients.md from what the last runs of the suite left
	python3 compat-tests/table.py
compat-smoke: build  ## kcat, confluent-kafka and kafka-python, a few minutes
	python3 compat-tests/run.py --smoke
traced:         ## tests of the binary under strace, which is installed where it is missing
	command -v strace >/dev/null || { apt-get update -qq && apt-get install -y -qq strace; }
	cargo test --test traced -- --ignored
portable:       ## brokers and their files on the code for systems that have nothing of their own, as Windows
	cargo test --features portable --lib --test broker --test several_brokers --test storage_log --test binary
	cargo test --features portable --test directories of_several
sim:            ## whole brokers in simulated worlds; SEEDS=n
	SEEDS=$(SEEDS) cargo test --test simulation -- --nocapture
fuzz:           ## hostile bytes, two targets at once; TARGET=name for one, FUZZ_SECONDS=n for each
	tests/fuzz/run.sh "$(TARGET)" $(FUZZ_SECONDS)
kills:          ## kill -9 under load a hundred times
	KILLS=100 cargo test --test binary kill_9
bugs:           ## break one rule of the log at a time and see that the tests find it
	python3 tests/seeded_bugs.py
coverage:       ## line coverage without generated code
	./tests/coverage.sh
docker:         ## build the image
	docker build -f docker/Dockerfile --build-arg RUST_IMAGE=$(RUST_IMAGE) --build-arg DEBIAN_IMAGE=$(DEBIAN_IMAGE) -t $(IMAGE) .
docker-base:    ## stand-ins for the base images of `make docker`, where none can be pulled
	docker/base.sh dlog-base/rust dlog-base/debian
docker-base-clients: docker-base  ## a stand-in for the base images of `make compat-docker`, which is 2 GB larger
	docker/base.sh dlog-base/rust dlog-base/debian dlog-base/clients
docker-test:    ## the image as start scripts of others use it
	python3 compat-tests/testcontainers/image.py $(IMAGE)
	python3 compat-tests/compose_files.py $(IMAGE)
	compat-tests/testcontainers/modules.sh $(IMAGE)
	DOCUMENTED_DOCKER=1 cargo test --test documents commands
docker-up:      ## broker, Prometheus and Grafana
	DLOG_IMAGE=$(IMAGE) $(COMPOSE) up -d
docker-logs:    ## what they say
	$(COMPOSE) logs -f
docker-down:    ## stop them; the data stays
	$(COMPOSE) down
deb: build      ## a Debian package with systemd unit, completions and manual pages: target/debian/
	command -v cargo-deb >/dev/null || cargo install --quiet --locked cargo-deb
	rm -rf target/package && mkdir -p target/package
	target/release/dlog man target/package/man
	target/release/dlog completions bash > target/package/dlog.bash
	target/release/dlog completions zsh > target/package/_dlog
	target/release/dlog completions fish > target/package/dlog.fish
	cargo deb --no-build
deb-test: deb   ## install the package in a container and use it
	compat-tests/package.sh $(DEBIAN_IMAGE) target/debian
install-dev:    ## what the tests of this project need on a Debian machine, beside Rust
	apt-get update -qq
	apt-get install -y -qq strace kcat python3-venv docker.io docker-compose debootstrap bash-static busybox-static prometheus
	cargo install --quiet --locked cargo-deb cargo-fuzz cargo-tarpaulin
dashboards: build  ## the dashboard and the alert rules against a broker under load
	python3 compat-tests/dashboards.py
lost-clients: build  ## dlog doctor and clients that are told an address which leads nowhere
	python3 compat-tests/lost_clients.py target/release/dlog
