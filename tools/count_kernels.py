"""Kernels, bytes and floating-point operations of one sound's program, as XLA compiles it.

    python tools/count_kernels.py --rows=student,base --dtype=bfloat16 --target=cpu,h200

Nothing runs and no weights are made: rows of `experiments.benchmark` are compiled from shapes. For
`h200` no GPU is needed either, but JAX's CUDA plugin is (`pip install --no-deps jax-cuda13-plugin
jax-cuda13-pjrt`, of jaxlib's own version); XLA then chooses kernels without having timed them.
Counted are instructions of the optimised program that start work on the device (fusions, library
calls, copies and the like, not bitcasts or tuples), each as often as its loop runs it.
"""

import argparse
import functools
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from experiments import systems  # noqa: E402
from realaudio_jax import program, program_io, release, watermark  # noqa: E402
from realaudio_jax.metrics.evaluation.generate import SamplerConfig, bucket_of  # noqa: E402
from realaudio_jax.models import text_encoder  # noqa: E402
from realaudio_jax.models.autoencoder import Autoencoder  # noqa: E402
from realaudio_jax.models.denoiser import Denoiser  # noqa: E402

# What XLA needs to know of an NVIDIA H200 (132 multiprocessors, compute capability 9.0).
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 150000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
runtime_version { major: 13 }
device_description_str: "NVIDIA H200"
"""
# Instructions that start nothing on the device.
FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota'}
_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?[\w.-]+ = (?:\(.*?\)|\S+) ([\w-]+)\(')
_CALLED = re.compile(r'(?:body|to_apply|calls|true_computation|called_computations)=\{?%?([\w.-]+)')


def computations(text: str) -> tuple[dict[str, list[tuple[str, str]]], str]:
    """Computations of an HLO module as (opcode, line) of each instruction, and the entry's name."""
    found, entry, lines = {}, '', None
    for line in text.splitlines():
        start = re.match(r'^(ENTRY )?%?([\w.-]+) \(.*\{$', line)
        if start:
            lines = found.setdefault(start[2], [])
            entry = start[2] if start[1] else entry
        elif lines is not None and (match := _INSTRUCTION.match(line)):
            lines.append((match[1], line))
    return found, entry


def count_kernels(text: str) -> dict[str, int]:
    """How often each kind of kernel starts: by opcode, and of library calls by their target."""
    found, entry = computations(text)

    @functools.cache
    def count(name: str) -> dict[str, int]:
        total = {}
        for opcode, line in found[name]:
            called = _CALLED.search(line)
            if opcode in ('while', 'call', 'conditional') and called:
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
                times = int(trips[1]) if trips else 1
                for kind, number in count(called[1]).items():
                    total[kind] = total.get(kind, 0) + times * number
            elif opcode not in FREE and not opcode.endswith('-done'):
                target = re.search(r'custom_call_target="([^"]+)"', line)
                kind = target[1] if target else opcode
                total[kind] = total.get(kind, 0) + 1
        return total

    return count(entry)


def device_of(target: str) -> jax.Device:
    """The device that is compiled for: one of this machine, or an H200 that is not there.

    Raises:
        ValueError: JAX's CUDA plugin is missing.
    """
    if target != 'h200':
        return jax.local_devices(backend=target)[0]
    try:
        found = topologies.get_topology_desc('', 'cuda', target_config=H200, topology='1x1x1')
    except Exception as error:
        raise ValueError(f'cannot compile for a GPU: {error}') from error
    return found.devices[0]


def shapes_of(row: str, dtype: str) -> tuple[program.Networks, dict]:
    """Modules of a row, and the shapes of what its program reads."""
    if row == 'student':
        config = release.read_release(release.find_release('foley'))
        dtype, networks = (
            'float32',
            program.Networks(
                text_encoder=text_encoder.TextEncoder(),
                autoencoder=Autoencoder(**config.autoencoder.to_dict()),
                denoiser=Denoiser(**config.denoiser.to_dict()),
                grid_powers=config.student.grid_powers,
            ),
        )
    else:
        how = systems.EXECUTIONS[row]
        networks = systems.paper_networks(dtype, how=how)
    tape = watermark.tape(watermark.Watermark(), networks.autoencoder.directions, networks.channels)
    stored = {
        'autoencoder': release.autoencoder_template(networks.autoencoder),
        'student': release.denoiser_template(networks.denoiser),
    }
    stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), stored)
    text = text_encoder.parameter_shapes()
    if row != 'student' and how.text:
        text = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), text)
    return networks, stored | {
        'text_encoder': text,
        program.WATERMARK: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tape),
    }


def compiled_for(row: str, dtype: str, seconds: float, target: str) -> jax.stages.Compiled:
    """The program of a row, compiled from shapes."""
    device = device_of(target)
    mesh = jax.sharding.Mesh([[device]], ('data', 'model'))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    networks, params = shapes_of(row, dtype)
    bucket = bucket_of(SamplerConfig('student', 4), seconds, 1, program_io.CAPACITIES[0])
    request, init = program_io.request_shapes(bucket, len(networks.denoiser.curves))
    function = functools.partial(program.generate, networks=networks, bucket=bucket)
    jitted = jax.jit(function, in_shardings=whole, out_shardings=whole)
    platform = 'cuda' if target == 'h200' else device.platform
    return jitted.trace(params, request, init).lower(lowering_platforms=(platform,)).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rows', default='student,base')
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--target', default='cpu')
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--hlo', type=pathlib.Path, help='folder for the compiled programs')
    given = parser.parse_args()
    for row in given.rows.split(','):
        for target in given.target.split(','):
            compiled = compiled_for(row, given.dtype, given.seconds, target)
            text, cost = compiled.as_text(), compiled.cost_analysis() or {}
            if given.hlo:
                given.hlo.mkdir(parents=True, exist_ok=True)
                (given.hlo / f'{row}-{target}.txt').write_text(text)
            kinds = count_kernels(text)
            print(
                json.dumps(
                    {
                        'row': row,
                        'target': target,
                        'dtype': given.dtype,
                        'jax': jax.__version__,
                        'kernels': sum(kinds.values()),
                        'bytes': cost.get('bytes accessed'),
                        'flops': cost.get('flops'),
                        'kinds': dict(sorted(kinds.items(), key=lambda kind: -kind[1])),
                    }
                ),
                flush=True,
            )


if __name__ == '__main__':
    main()
