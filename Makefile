# What there is to run. Tests and checks of everything: .ci/run.

.PHONY: dev bench

# The whole of stspub on this machine, with nothing to configure.
dev:
	go run ./cmd/stspub dev

# stspub beside nginx; see docs/benchmarks.md. BENCH="-pairs 9" passes flags, "-help" shows them.
bench:
	go run ./internal/bench $(BENCH)
