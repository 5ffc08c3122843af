# Development and CI targets. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The go command downloads the Go release of go.mod if the installed one is older.
# `make test GOTOOLCHAIN=go1.26.11` uses another release.
export GOTOOLCHAIN := auto

# Without the path of the checkout in its keys, the build cache is shared by all checkouts.
export GOFLAGS := -trimpath $(GOFLAGS)

tools := .tools
bin := $(tools)/bin
buf := $(tools)/node_modules/.bin/buf
golangci := $(bin)/golangci-lint
interop := $(tools)/interop
generators := $(addprefix $(bin)/,protoc-gen-go protoc-gen-connect-go protoc-gen-connect-openapi)
# One file represents all imports: they are written together, this one first.
protodeps := $(tools)/proto/buf/validate/validate.proto

contract := service/testdata/contract
contract_source := ../shared/contract/user.proto
release := service/testdata/release/user.binpb

# Modules of both the tools and the service. Their versions must be equal, because generated
# code may not work with another version at run time.
shared_modules := \
	buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go \
	connectrpc.com/connect \
	google.golang.org/genproto/googleapis/api \
	google.golang.org/genproto/googleapis/rpc \
	google.golang.org/protobuf

# The race detector needs a C compiler; without one, the tests run without it.
# The translated C of SQLite is not instrumented, which saves four fifths of the time of tests with a store; the Go code
# around it is.
uninstrumented := modernc.org/sqlite/lib modernc.org/libc/... modernc.org/memory
race := $(if $(shell command -v $${CC:-gcc}),-race $(foreach p,$(uninstrumented),'-gcflags=$p=-race=false -d=checkptr=0'))

# Hand-written Go files of all modules.
gofiles = git ls-files --cached --others --exclude-standard '*.go' ':!gen/user'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##### The programs

.PHONY: build
build: ## Build userd into this folder: static, reproducible, with the version of the Git tag
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -o . ./cmd/...

.PHONY: run
run: ## Run the server from source (ARGS="--listen :8080" passes flags)
	go run ./cmd/userd $(ARGS)

##### Checks

longest := service/store/postgres service/server client service/store/sqlite service service/store/move service/http2

# Packages without goroutines, and the suite of stores on the model: they are tested without the race detector.
raceless := $(addprefix ./service/,auth/devtoken bounds browser fieldmask filter forwarded httperror jsonpb pagetoken panics \
	protocol reqinfo rpc rpcstatus store/encoding store/page store/storetest store/tokens user validate)

# Property tests run with so many random cases in `make test`; the default of rapid is 100.
RAPID_CHECKS ?= 40
export RAPID_CHECKS

.PHONY: test
# The tests of the programs run them as processes and wait most of the time, so the other tests run beside them, with a lower
# priority because the results of the former depend on timing. Fewer garbage collections save up to a seventh of the CPU
# time of the latter; the programs have to run with the default. A binary with the race detector waits a second at its end.
test: export GORACE := atexit_sleep_ms=0 $(GORACE)
test: postgres ## Vet and test, with the race detector; Go alone (TESTFLAGS="-run X -v" adds flags)
	GOGC=400 go vet ./...
	$(if $(race),,@echo 'no C compiler: without the race detector')
	# The packages that take longest start first. go vet has run.
	go test -vet=off -timeout 9m -parallel 4 $(TESTFLAGS) ./cmd/... $(raceless) & programs=$$!; status=0; \
		GOGC=400 nice go test $(race) -vet=off -timeout 15m $(TESTFLAGS) $(addprefix ./,$(longest)) \
			$$(comm -23 <(go list ./... | grep -v /cmd/ | sort) <(go list $(raceless) | sort)) || status=1; \
		wait $$programs || status=1; exit $$status

.PHONY: test-long
test-long: RAPID_CHECKS := 300
test-long: postgres ## Test with more random cases, kills, restarts and changes; without the race detector
	go test -vet=off -count=1 -timeout 20m ./service/feed ./service/store/... ./service/user
	go test -vet=off -count=1 -timeout 20m -run '^Test(StoreWithFaults|MovedStore)$$' ./service/store/postgres ./service/store/move -args -long
	go test -vet=off -count=1 -timeout 20m -run '^Test(KillLosesNoAcknowledgedWrite|ReadersReceiveExactlyTheLog|MirrorsEqualTheStore|Migrate)$$' ./cmd/userd -long

.PHONY: postgres
# The tests start a private server from these programs, see service/store/pgtest.
postgres:
	@if [[ -z "$${USERD_TEST_POSTGRES:-}" ]] && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && ! command -v postgres >/dev/null; then \
		if [[ $$(id -u) == 0 ]] && command -v apt-get >/dev/null; then apt-get install -y --no-install-recommends postgresql; \
		else echo 'the tests need PostgreSQL: install it, or set USERD_TEST_POSTGRES to the URL of a server' >&2; exit 1; fi; fi

.PHONY: lint
lint: $(golangci) $(buf) $(protodeps) ## Lint the Go code and the proto files, and check the formatting
	@unformatted=$$($(gofiles) | while read -r f; do if [[ -f $$f ]]; then gofmt -s -l "$$f"; fi; done); \
	if [[ -n $$unformatted ]]; then printf 'not formatted (run gofmt -s -w):\n%s\n' "$$unformatted" >&2; exit 1; fi
	$(buf) lint proto
	$(buf) format proto --diff --exit-code
	cd $(tools) && go vet ./...
	$(golangci) run ./...

.PHONY: alerts
alerts: ## Check the alerts, and test that each fires (needs promtool, part of Prometheus)
	promtool check rules service/telemetry/alerts/userd.yaml
	promtool test rules service/telemetry/alerts/userd_test.yaml

.PHONY: breaking
breaking: $(buf) $(protodeps) ## Check the proto files for breaking changes against the fixed contract and the last release
	@if [[ -f $(contract_source) ]] && ! cmp $(contract_source) $(contract)/user/v1/user.proto; then \
		echo 'the copy of the fixed contract must be identical to it' >&2; exit 1; fi
	$(buf) breaking proto --config $(tools)/breaking-contract.yaml --against $(contract)
	$(buf) breaking proto --against $(release)

.PHONY: release-image
release-image: $(buf) $(protodeps) ## Save the current proto files as the release that `breaking` compares with
	@mkdir -p $(dir $(release))
	$(buf) build proto --exclude-source-info -o $(release)

.PHONY: readme
readme: $(buf) $(protodeps) $(bin)/grpcurl ## Run the commands of the README against a new server (needs curl)
	go test -tags readme -count=1 -run Readme ./cmd/userd

.PHONY: siege
siege: ## Run the known attacks against a server with 460 MiB of memory (SIEGE=gzip selects some)
	go test -count=1 -timeout 40m -v -run '^TestSiege/$(SIEGE)' ./cmd/userd -siege | grep -E '^ *(---|===|ok|FAIL|panic)|siege'

.PHONY: conformance
# The proto files of the runner are in its module.
conformance: $(buf) $(generators) ## Run the Connect conformance suite against the whole server and the Go client, gRPC interop cases and h2spec
	cd service/conformance && runner=$$(go mod download -json connectrpc.com/conformance | sed -n 's/^\t"Dir": "\(.*\)",*$$/\1/p') && \
		../../$(buf) generate "$$runner/proto" && go vet ./... && go test -count=1 -timeout 20m -v ./... | grep -v '^=== '

.PHONY: interop
# The test is compiled first, so that each result is printed as soon as the case ends.
interop: interop-clients $(bin)/grpcurl ## Test third-party clients, directly and through proxies (CASE=grpcio selects some)
	go test -c -tags interop -o $(bin)/interop.test ./cmd/userd
	cd cmd/userd && ../../$(bin)/interop.test -test.run '^TestInterop$$' -test.timeout 8m

.PHONY: interop-clients
interop-clients: $(buf) $(protodeps)
	$(interop)/install
	npm ci --prefix $(interop) --no-progress
	rm -rf $(interop)/gen && mkdir -p $(interop)/gen
	$(buf) build proto -o $(interop)/gen/user.binpb
	cd $(interop) && ../node_modules/.bin/buf generate gen/user.binpb --template buf.gen.yaml

.PHONY: deploy-check
deploy-check: postgres ## Check the files in deploy/ (needs root, systemd-analyze, promtool and nginx)
	go test -tags deploy -count=1 -run 'Release|Container|Systemd|Prometheus|Kubernetes|Compose' ./cmd/userd

##### Benchmarks

.PHONY: bench
bench: ## Benchmark the program with a million users (BENCH=Replay selects some)
	go test -run '^$$' -bench '$(or $(BENCH),.)' -benchtime 2s -timeout 30m ./cmd/userd | grep -v level=

.PHONY: bench-postgres
bench-postgres: postgres ## Benchmark PostgreSQL: creates on one to three nodes beside pgbench, with and without latency, and delivery between nodes
	go test -run '^$$' -bench 'Create|Delivery' -benchtime $(or $(BENCHTIME),5000x) -timeout 30m ./service/store/postgres | awk '/^(Benchmark|PASS|FAIL|ok)/'

.PHONY: bench-parts
bench-parts: ## Benchmark the packages: store, interceptors, transport
	go test -run '^$$' -bench . -benchmem -timeout 30m ./service/...

##### Generated code

# Generate into a temporary directory, so that a failure does not change gen/.
# gen/embed.go is hand-written.
define generate
tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; $(buf) generate --output "$$tmp"
endef

.PHONY: generate
generate: $(buf) $(generators) $(protodeps) ## Generate gen/user and gen/openapi from proto/
	@$(generate); \
	mkdir -p gen; rm -rf gen/user gen/openapi; cp -R "$$tmp/gen/." gen/

.PHONY: generate-check
generate-check: $(buf) $(generators) $(protodeps) ## Check that gen/ is up to date; changes nothing
	@$(generate); \
	diff -r "$$tmp/gen/user" gen/user && diff -r "$$tmp/gen/openapi" gen/openapi \
		|| { echo 'gen/ is out of date: run make generate' >&2; exit 1; }

.PHONY: descriptors
descriptors: $(buf) $(protodeps) ## Write user.binpb, the proto files with their imports, to generate clients in other languages
	$(buf) build proto -o user.binpb

##### Tools

.PHONY: tools
tools: $(buf) $(generators) $(protodeps) $(golangci) $(bin)/grpcurl ## Build all tools (other targets build those that they need)

.PHONY: tools-versions
tools-versions: ## Check that .tools/go.mod and go.mod have the same versions of shared modules
	@version() { awk -v m="$$2" '$$1 == m {print $$2} $$1 == "require" && $$2 == m {print $$3}' "$$1"; }; \
	ok=true; \
	for m in $(shared_modules); do \
		ours=$$(version go.mod "$$m"); theirs=$$(version $(tools)/go.mod "$$m"); \
		if [[ $$ours != "$$theirs" ]]; then \
			echo "$$m: $${ours:-missing} in go.mod, $${theirs:-missing} in $(tools)/go.mod" >&2; ok=false; \
		fi; \
	done; \
	$$ok || { echo 'make the versions equal: (cd $(tools) && go get MODULE@VERSION), then make generate' >&2; exit 1; }

# tools-versions is an order-only prerequisite: it always runs, but does not cause a rebuild.
$(bin)/protoc-gen-go: package := google.golang.org/protobuf/cmd/protoc-gen-go
$(bin)/protoc-gen-connect-go: package := connectrpc.com/connect/cmd/protoc-gen-connect-go
$(bin)/protoc-gen-connect-openapi: package := github.com/sudorandom/protoc-gen-connect-openapi
$(bin)/grpcurl: package := github.com/fullstorydev/grpcurl/cmd/grpcurl
$(generators) $(bin)/grpcurl: $(tools)/go.mod | tools-versions
	cd $(tools) && go build -o bin/$(@F) $(package)

$(golangci): $(tools)/lint/go.mod
	cd $(tools)/lint && go build -o ../bin/$(@F) github.com/golangci/golangci-lint/v2/cmd/$(@F)

$(protodeps): $(tools)/go.mod $(wildcard $(tools)/protodeps/*.go) | tools-versions
	cd $(tools) && go run ./protodeps proto

$(buf): $(tools)/package-lock.json $(tools)/.npmrc
	npm ci --prefix $(tools)
	@touch $@

##### CI

.PHONY: ci
ci: ## Run all CI steps
	.ci/run
