module github.com/gantry-containers/gantry/test/oci-distribution

go 1.26.0

replace github.com/gantry-containers/gantry => ../..

require (
	github.com/gantry-containers/gantry v0.0.0-00010101000000-000000000000
	github.com/opencontainers/distribution-spec/conformance v0.0.0-20260831232431-97274622c111
	golang.org/x/crypto v0.59.0
)

require (
	github.com/goccy/go-yaml v1.18.0 // indirect
	github.com/opencontainers/distribution-spec/specs-go v0.0.0-20240926185104-8376368dd8aa // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
)
