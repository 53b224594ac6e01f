import pytest


@pytest.fixture(scope='session')
def tower_release(tiny_release, tmp_path_factory):
    """The tiny release with a tiny random audio tower."""
    import tiny_tower

    return tiny_tower.write(tiny_release, tmp_path_factory.mktemp('tower') / 'tiny')
