"""Reads a published BERT checkpoint into the parameters of `text_encoder.TextEncoder`."""

from collections.abc import Mapping

import numpy as np


def import_bert(tensors: Mapping[str, np.ndarray], layers: int = 6) -> dict:
    """The parameters of `TextEncoder` from the names and layouts of a published BERT checkpoint.

    Args:
        tensors: arrays by name, as in the `model.safetensors` of all-MiniLM-L6-v2.
        layers: how many layers to read.

    Returns:
        Nested dicts of numpy arrays in the arrays' own dtype.

    Raises:
        ValueError: names are missing or left over; all are listed.
    """
    left = {k: np.asarray(v) for k, v in tensors.items()}
    for unused in ('embeddings.position_ids', 'pooler.dense.weight', 'pooler.dense.bias'):
        left.pop(unused, None)
    missing = []

    def take(name: str) -> np.ndarray:
        if name not in left:
            missing.append(name)
        return left.pop(name, np.zeros((1, 1)))

    def dense(*names: str) -> dict:  # several are joined side by side
        kernels = [take(f'{name}.weight').T for name in names]
        biases = [take(f'{name}.bias') for name in names]
        return {'kernel': np.concatenate(kernels, -1), 'bias': np.concatenate(biases, -1)}

    def norm(name: str) -> dict:
        return {'scale': take(f'{name}.LayerNorm.weight'), 'bias': take(f'{name}.LayerNorm.bias')}

    segment = take('embeddings.token_type_embeddings.weight')[:1]
    params = {
        'token': {'embedding': take('embeddings.word_embeddings.weight')},
        'position': {'embedding': take('embeddings.position_embeddings.weight') + segment},
        'embedding_norm': norm('embeddings'),
    }
    for i in range(layers):
        old = f'encoder.layer.{i}'
        inputs = [f'{old}.attention.self.{part}' for part in ('query', 'key', 'value')]
        params[f'layer_{i}'] = {
            'attention': {'qkv': dense(*inputs), 'out': dense(f'{old}.attention.output.dense')},
            'attention_norm': norm(f'{old}.attention.output'),
            'expand': dense(f'{old}.intermediate.dense'),
            'contract': dense(f'{old}.output.dense'),
            'output_norm': norm(f'{old}.output'),
        }
    if missing or left:
        problems = [f'missing {name}' for name in missing] + [f'unexpected {n}' for n in left]
        raise ValueError(
            f'not the checkpoint of a {layers}-layer BERT: {"; ".join(problems)}; '
            'give the model.safetensors of all-MiniLM-L6-v2'
        )
    return params
