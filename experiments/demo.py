"""A timeline editor in the browser: events are dragged, loudness is drawn, sound is heard at once.

python -m experiments.demo
"""

from absl import flags

from experiments import serve
from experiments.common import run

flags.adopt_module_key_flags(serve)
for name, value in (('seconds', ['10']), ('hop', 0.4), ('timeout', 120.0)):
    flags.FLAGS.set_default(name, value)


def add_page(app):
    """The editor's routes, see `realaudio_jax.demo`."""
    from realaudio_jax import demo

    demo.add_page(app)


def main(argv):
    del argv
    serve.serve('demo', add_page)


if __name__ == '__main__':
    run(main)
