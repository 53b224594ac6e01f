"""The noise paths of the toys."""

import pytest
import toys


@pytest.fixture(params=toys.PATHS)
def each_path(request, monkeypatch):
    """Sets `toys.PATH`."""
    monkeypatch.setattr(toys, 'PATH', toys.PATHS[request.param])
