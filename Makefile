# Everything that is done to this project by hand or by CI. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# go.mod names the Go release that is patched; the go command fetches it where the
# installed one is older. `make test GOTOOLCHAIN=go1.26.11` tests with another.
export GOTOOLCHAIN := auto

tools := .tools
bin := $(tools)/bin
buf := $(tools)/node_modules/.bin/buf
golangci := $(bin)/golangci-lint
interop := $(tools)/interop
generators := $(addprefix $(bin)/,protoc-gen-go protoc-gen-connect-go protoc-gen-connect-openapi)
# One of the printed files stands for all: they are written together, it first.
protodeps := $(tools)/proto/buf/validate/validate.proto

contract := service/testdata/contract
contract_source := ../shared/contract/user.proto
release := service/testdata/release/user.binpb

# Modules that both the tools and the service are built with: what was generated or
# printed from one version need not fit another at run time.
shared_modules := \
	buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go \
	connectrpc.com/connect \
	google.golang.org/genproto/googleapis/api \
	google.golang.org/genproto/googleapis/rpc \
	google.golang.org/protobuf

# The race detector needs a C compiler; without one the tests run all the same.
race := $(if $(shell command -v $${CC:-gcc}),-race)

# Go files that people write, whichever module they belong to.
gofiles = git ls-files --cached --others --exclude-standard '*.go' ':!gen/user'

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##### The programs

.PHONY: build
build: ## Build userd into this folder
	CGO_ENABLED=0 go build -trimpath -o . ./cmd/...

.PHONY: run
run: ## Run the server from source (ARGS="--listen :8080" passes flags)
	go run ./cmd/userd $(ARGS)

##### Checks

.PHONY: test
# The tests of the programs run them as processes, built as users build them. They
# come last and by themselves, since a busy machine hides what they look for.
test: ## Vet and test, with the race detector; Go alone (TESTFLAGS="-run X -v" adds flags)
	go vet ./...
	$(if $(race),,@echo 'no C compiler: without the race detector')
	go test $(race) -timeout 9m $(TESTFLAGS) $$(go list ./... | grep -v /cmd/)
	go test -timeout 9m $(TESTFLAGS) ./cmd/...

.PHONY: lint
lint: $(golangci) $(buf) $(protodeps) ## Judge the Go code, the proto files and their layout
	@unformatted=$$($(gofiles) | while read -r f; do if [[ -f $$f ]]; then gofmt -s -l "$$f"; fi; done); \
	if [[ -n $$unformatted ]]; then printf 'not formatted (gofmt -s -w mends it):\n%s\n' "$$unformatted" >&2; exit 1; fi
	$(buf) lint proto
	$(buf) format proto --diff --exit-code
	cd $(tools) && go vet ./...
	$(golangci) run ./...

.PHONY: alerts
alerts: ## Check the alerts, and that each fires when it should (needs promtool, which comes with Prometheus)
	promtool check rules service/telemetry/alerts/userd.yaml
	promtool test rules service/telemetry/alerts/userd_test.yaml

.PHONY: breaking
breaking: $(buf) $(protodeps) ## Check that no caller breaks: against the fixed contract and the last release
	@if [[ -f $(contract_source) ]] && ! cmp $(contract_source) $(contract)/user/v1/user.proto; then \
		echo 'the copy of the fixed contract must be identical to it' >&2; exit 1; fi
	$(buf) breaking proto --config $(tools)/breaking-contract.yaml --against $(contract)
	$(buf) breaking proto --against $(release)

.PHONY: release-image
release-image: $(buf) $(protodeps) ## Make the present proto the last release that `breaking` compares with
	@mkdir -p $(dir $(release))
	$(buf) build proto --exclude-source-info -o $(release)

.PHONY: readme
readme: $(buf) $(protodeps) $(bin)/grpcurl ## Paste the README's commands beside a fresh server (needs curl)
	go test -tags readme -count=1 -run Readme ./cmd/userd

.PHONY: siege
siege: ## Attack a server with 460 MiB of memory in every way that is known (SIEGE=gzip picks some)
	go test -count=1 -timeout 40m -v -run '^TestSiege/$(SIEGE)' ./cmd/userd -siege | grep -E '^ *(---|===|ok|FAIL|panic)|siege'

.PHONY: conformance
# The runner's own proto files come with its module.
conformance: $(buf) $(generators) ## Run the Connect conformance suite, gRPC interop cases and h2spec against the whole server
	cd service/conformance && runner=$$(go mod download -json connectrpc.com/conformance | sed -n 's/^\t"Dir": "\(.*\)",*$$/\1/p') && \
		../../$(buf) generate "$$runner/proto" && go vet ./... && go test -count=1 -timeout 20m -v ./... | grep -v '^=== '

.PHONY: interop
# The test is run as a program of its own, so that each case shows as it ends.
interop: interop-clients $(bin)/grpcurl ## Call the program with other people's clients, directly and through proxies (CASE=grpcio picks some)
	go test -c -tags interop -o $(bin)/interop.test ./cmd/userd
	cd cmd/userd && ../../$(bin)/interop.test -test.run '^TestInterop$$' -test.timeout 8m

.PHONY: interop-clients
interop-clients: $(buf) $(protodeps)
	$(interop)/install
	npm ci --prefix $(interop) --no-progress
	rm -rf $(interop)/gen && mkdir -p $(interop)/gen
	$(buf) build proto -o $(interop)/gen/user.binpb
	cd $(interop) && ../node_modules/.bin/buf generate gen/user.binpb --template buf.gen.yaml

##### Figures

.PHONY: bench
bench: ## Measure the program with a million users, on this machine (BENCH=Replay picks some)
	go test -run '^$$' -bench '$(or $(BENCH),.)' -benchtime 2s -timeout 30m ./cmd/userd | grep -v level=

.PHONY: bench-parts
bench-parts: ## Measure the parts: the store, the interceptors, the transport
	go test -run '^$$' -bench . -benchmem -timeout 30m ./service/...

##### Generated code

# Both targets below generate into a folder of their own: a failure leaves
# gen/ as it was, and gen/embed.go, which people write, is never in the way.
define generate
tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; $(buf) generate --output "$$tmp"
endef

.PHONY: generate
generate: $(buf) $(generators) $(protodeps) ## Generate gen/user and gen/openapi anew from proto/
	@$(generate); \
	mkdir -p gen; rm -rf gen/user gen/openapi; cp -R "$$tmp/gen/." gen/

.PHONY: generate-check
generate-check: $(buf) $(generators) $(protodeps) ## Check that gen/ is what proto/ generates; changes nothing
	@$(generate); \
	diff -r "$$tmp/gen/user" gen/user && diff -r "$$tmp/gen/openapi" gen/openapi \
		|| { echo 'gen/ is not what proto/ generates: run make generate' >&2; exit 1; }

##### Tools

.PHONY: tools
tools: $(buf) $(generators) $(protodeps) $(golangci) $(bin)/grpcurl ## Build every tool (the other targets build those they need)

.PHONY: tools-versions
tools-versions: ## Check that .tools/go.mod and go.mod agree on the modules they share
	@version() { awk -v m="$$2" '$$1 == m {print $$2} $$1 == "require" && $$2 == m {print $$3}' "$$1"; }; \
	ok=true; \
	for m in $(shared_modules); do \
		ours=$$(version go.mod "$$m"); theirs=$$(version $(tools)/go.mod "$$m"); \
		if [[ $$ours != "$$theirs" ]]; then \
			echo "$$m: $${ours:-missing} in go.mod, $${theirs:-missing} in $(tools)/go.mod" >&2; ok=false; \
		fi; \
	done; \
	$$ok || { echo 'make the versions equal: (cd $(tools) && go get MODULE@VERSION), then make generate' >&2; exit 1; }

# The versions are checked each time, before anything is built from them; that the
# check ran is no reason to build anew, hence the bar before it.
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

##### All of it

.PHONY: ci
ci: ## Do what CI does
	.ci/run
