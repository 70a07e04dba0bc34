"""What Paygent's own tests, demo and benchmarks run against, shipped so that yours can too."""
