"""What training scripts share: state, checkpoints, sharding, metric writers, loop tools."""
