# Gantry is built, tried and tested with the targets below. `make run` and
# `make test` install what they need and ask for root themselves.

GO         ?= go
VERSION    ?= 0.1.0-dev
COMMIT     ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILT      ?= $(shell git show -s --format=%cI 2>/dev/null)
PKG        := github.com/gantry-containers/gantry
LDFLAGS    := -s -w -X $(PKG)/internal/engine.Version=$(VERSION) -X $(PKG)/internal/engine.GitCommit=$(COMMIT) -X $(PKG)/internal/cli.Version=$(VERSION) -X $(PKG)/internal/ociruntime.Version=$(VERSION) -X $(PKG)/internal/cli.Commit=$(COMMIT) -X $(PKG)/internal/engine.BuildTime=$(BUILT) -X $(PKG)/internal/cli.BuildTime=$(BUILT)
OTHERS     := gantryd gantry-shim gantry-oci gantry-init gantry-manifest
PROGRAMS   := gantry gantry-tls $(OTHERS)
TOOLBOX    := internal/image/toolbox/archive/toolbox.tar.gz

export CGO_ENABLED := 0

.PHONY: all build toolbox run test bench soak cross lint clean install

all: build

## build: the programs, into bin/
# They are copied there as an installation would be: the pages of a file that the
# linker wrote through a mapping are in the page cache one by one, and gantry
# takes 0.3 ms longer to start from those. gantry has no TLS; where it needs it, it
# becomes gantry-tls, the same program with it.
build: $(TOOLBOX)
	@mkdir -p bin/.linked
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/.linked/ $(addprefix ./cmd/,$(OTHERS))
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/.linked/gantry-tls ./cmd/gantry
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -tags lean -o bin/.linked/gantry ./cmd/gantry
	@cd bin && for p in $(PROGRAMS); do cp .linked/$$p .linked/$$p.copy && mv -f .linked/$$p.copy $$p || exit 1; done
	@rm -rf bin/.linked

## toolbox: the image that is embedded in the engine
toolbox: $(TOOLBOX)

$(TOOLBOX): $(shell find toolbox -name '*.go' -o -name 'go.*' 2>/dev/null)
	@mkdir -p $(dir $@)
	cd toolbox && $(GO) run ./mkimage -o ../$@

## run: install what is missing, build, start an engine and enter a container
run:
	@script/run

## test: install what the tests need and run all of them
test:
	@script/test

## bench: measure against the engines and runtimes that are installed
bench:
	@script/bench
	@script/bench-images

## soak: the fault tests for longer than CI has time
soak:
	@script/soak

## cross: check that everything builds where it is to run
cross:
	GOOS=linux GOARCH=arm64 $(GO) build -o /dev/null ./cmd/gantryd
	GOOS=linux GOARCH=arm64 $(GO) vet ./cmd/... ./internal/spawn ./internal/ocirt/... ./internal/shim
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/gantry
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/gantry

lint:
	@test -z "$$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; exit 1; }
	$(GO) vet ./...

PREFIX ?= /usr/local
## install: the programs into PREFIX/bin
install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(addprefix bin/,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf bin $(TOOLBOX)
