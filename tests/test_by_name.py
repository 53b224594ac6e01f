"""Short names, dotted paths, and what is refused."""

import sys
import types

import pytest

from realaudio_jax import by_name, timeline

TABLE = {'fraction': 'fractions:Fraction', 'colours': 'colorsys:rgb_to_hsv'}


def test_a_name_and_a_dotted_path_give_the_same_object(monkeypatch):
    from fractions import Fraction

    assert by_name.find('fraction', TABLE) is by_name.find('fractions.Fraction', TABLE) is Fraction
    monkeypatch.delitem(sys.modules, 'colorsys', raising=False)
    by_name.find('fraction', TABLE)
    assert 'colorsys' not in sys.modules  # nothing else is imported


@pytest.mark.parametrize(
    'name, part',
    [
        ('fractoin', "no number 'fractoin': did you mean 'fraction'"),
        ('xyz', 'use one of colours, fraction, or a dotted path'),
        ('nowhere.Thing', 'its module cannot be found; run from its folder'),
        ('fractions.Fractoin', "fractions has no 'Fractoin'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(name, part):
    with pytest.raises(ValueError, match=part) as caught:
        by_name.find(name, TABLE, 'number')
    assert '\n' not in str(caught.value)


def test_a_module_that_lacks_another_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / 'half_there.py').write_text('import surely_not_installed\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match='surely_not_installed'):
        by_name.find('half_there.Thing', TABLE)


def test_attributes_are_imported_at_first_use(monkeypatch):
    module = types.ModuleType('lazy')
    monkeypatch.setitem(sys.modules, 'lazy', module)
    monkeypatch.delitem(sys.modules, 'colorsys', raising=False)
    module.present = 1
    module.__getattr__, module.__dir__ = by_name.lazy_attributes(
        'lazy', {'rgb_to_hsv': 'colorsys:rgb_to_hsv'}
    )
    assert {'present', 'rgb_to_hsv'} <= set(dir(module))
    assert 'colorsys' not in sys.modules
    assert module.rgb_to_hsv is sys.modules['colorsys'].rgb_to_hsv
    with pytest.raises(AttributeError, match="module 'lazy' has no attribute 'hsv'"):
        _ = module.hsv


def test_the_package_has_what_it_exports():
    import realaudio_jax

    assert realaudio_jax.Event is timeline.Event
    assert set(realaudio_jax.__all__) <= set(dir(realaudio_jax))
    for name in realaudio_jax.__all__:
        assert getattr(realaudio_jax, name)
    assert not hasattr(realaudio_jax, 'Evnet')
