"""A release's program for other runtimes: StableHLO for JAX, ONNX for everything else."""
