"""What the benchmarks of training speed are made of: material, rounds, parity, tables."""
