"""Distillation recipes behind one signature, see `recipe`; by name: `registry.make`.

The classes of RECIPES can be imported from here, such as `from realaudio_jax.distillation import
Consistency`; each is loaded when it is asked for.
"""

from realaudio_jax.by_name import lazy_attributes

_HERE = 'realaudio_jax.distillation'
RECIPES = {
    'arc': f'{_HERE}.arc:AdversarialPostTraining',
    'consistency': f'{_HERE}.consistency:Consistency',
    'ctm': f'{_HERE}.ctm:ConsistencyTrajectory',
    'dmd': f'{_HERE}.dmd:DistributionMatching',
    'energy': f'{_HERE}.energy:Energy',
    'mean_flow': f'{_HERE}.mean_flow:MeanFlow',
    'multi_teacher': f'{_HERE}.multi_teacher:MultiTeacher',
    'progressive': f'{_HERE}.progressive:Progressive',
    'scm': f'{_HERE}.scm:ContinuousConsistency',
    'shortcut': f'{_HERE}.shortcut:Shortcut',
}
_CLASSES = {place.rpartition(':')[2]: place for place in RECIPES.values()}
__all__ = ['RECIPES', *_CLASSES]

__getattr__, __dir__ = lazy_attributes(__name__, _CLASSES)
