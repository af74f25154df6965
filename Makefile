# The two commands that matter need no make:
#	go run ./cmd/posthorn dev
#	go test ./...
# This file only names the longer forms.

TOOL = go tool -modfile=tools/go.mod

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

build: ## the binary, ./posthorn, without cgo and with reproducible paths
	CGO_ENABLED=0 go build -trimpath -tags netgo -o posthorn ./cmd/posthorn

test: ## what README says and CI runs
	go test ./...

race: ## all tests under the race detector
	tools/race

lint: ## gofmt, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...

fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	tools/fuzz $(or $(FUZZTIME),20s)

crash: ## kill -9 the real binary KILLS (default 20) times under load; nothing may be lost
	go test -count=1 -timeout 30m -run TestCrash -v ./internal/crash -kills $(or $(KILLS),20)

cluster: ## three nodes on one PostgreSQL for a minute: kills, stops, cuts, crashes; SEED repeats a run
	go test -count=1 -timeout 15m -skip '^TestAWrongClockHarmsNothing$$' -v ./internal/cluster -long $(if $(SEED),-seed $(SEED))

soak: ## all that happens to a service at once for MINUTES (default 60): memory, files, goroutines stay flat, figures agree; SEED, POSTGRES=1, SAMPLES=FILE
	go test -count=1 -timeout $$(( 2 * $(or $(MINUTES),60) + 10 ))m -run '^TestSoak$$' -v ./internal/soak -minutes $(or $(MINUTES),60) $(if $(SEED),-seed $(SEED)) $(if $(POSTGRES),-postgres) $(if $(SAMPLES),-samples $(abspath $(SAMPLES)))

neighbours: ## hostile tenants beside one that keeps to its share: what it notices, 10 minutes
	go test -count=1 -timeout 60m -v ./internal/neighbour -long

torture: ## the long forms of the proofs, and one table: promise, cases, failures
	tools/torture

model: ## search the model of who holds a row (spin, gcc), two minutes; STORY=1 tells what leads to each fault
	tools/model

night: ## what is longer than CI, three hours: the model, kills, the cluster, the soak, worlds, fuzzing; PARTS chooses
	.ci/night $(PARTS)

bench: ## the table of docs/performance.md on this machine, medians of RUNS (default 5), 20 minutes
	go run ./cmd/posthorn bench --table --runs $(or $(RUNS),5)

bench-lists: ## build a store of DELIVERIES (default 10000000) in DIR (default a temporary folder; postgres for a server of its own) and time the lists
	go test -count=1 -timeout 6h -run TestListsAtScale -v ./internal/app -lists $(or $(DELIVERIES),10000000) -lists-store '$(DIR)'

schedule: ## the first waits of the default retry schedule in real time, 6 minutes
	go test -count=1 -timeout 15m -run TestDefaultSchedule -v ./test/reference -long

licenses: ## what every dependency's licence is; fails for one that nobody allowed
	go run ./internal/supply licenses

sbom: build ## bill of materials of ./posthorn (CycloneDX 1.6 JSON) in posthorn.cdx.json
	go run ./internal/supply sbom posthorn > posthorn.cdx.json

reproducible: ## build twice, in two folders, without a shared cache; the bytes must be the same
	tools/reproducible

vulncheck: ## known vulnerabilities in what the code calls; needs the network
	tools/vulncheck

ci: ## what CI does
	.ci/run

.PHONY: help build test race lint fuzz crash cluster soak torture model night bench bench-lists schedule licenses sbom reproducible vulncheck ci
.DEFAULT_GOAL := help
