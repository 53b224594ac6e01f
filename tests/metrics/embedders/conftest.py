"""Random networks in PyTorch, the independent judges of the ports."""

import pytest
import safetensors.numpy


@pytest.fixture(scope='session')
def randomise():
    """A function that gives every parameter and statistic of a torch module a random value.

    Fresh modules hide errors: their norms are the identity and their biases zero.
    """
    torch = pytest.importorskip('torch', reason="no torch: install the extra 'reference'")

    def apply(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim > 1:
                tensor.copy_(noise * (2 / max(1, tensor[0].numel())) ** 0.5)
            elif name.endswith('running_var'):
                tensor.copy_(0.5 + noise.abs())
            elif name.endswith('weight'):
                tensor.copy_(1 + 0.2 * noise)
            else:
                tensor.copy_(0.2 * noise)
        return module.eval()

    return apply


@pytest.fixture(scope='session')
def save():
    """A function that writes a module's state dict as safetensors, buffers included."""

    def write(module, path):
        tensors = {k: v.numpy().copy() for k, v in module.state_dict().items()}
        path.write_bytes(safetensors.numpy.save(tensors))
        return path

    return write
