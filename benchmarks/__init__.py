"""How fast and how good: python -m benchmarks NAME."""
