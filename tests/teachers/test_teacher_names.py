"""Teachers can be imported by the names of their classes."""

import pytest

import realaudio_jax.teachers


@pytest.mark.parametrize('name', sorted(realaudio_jax.teachers.__all__))
def test_what_the_package_lists_can_be_imported(name):
    assert getattr(realaudio_jax.teachers, name) is not None


def test_a_teacher_that_does_not_exist_is_no_attribute():
    with pytest.raises(AttributeError, match='StableAudio9'):
        realaudio_jax.teachers.StableAudio9  # noqa: B018
