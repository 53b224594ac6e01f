import soundfile


def test_each_example_is_heard_seen_and_listed(experiment, tiny_release, tmp_path, monkeypatch):
    run = experiment('examples')
    monkeypatch.setattr(run, 'SECONDS', 1.0)
    monkeypatch.setattr(run, 'EXAMPLES', (('rain', ''), ('', 'bell@0.2-0.5; dog@0.6-0.8')))
    values = {'RELEASE': str(tiny_release), 'STEPS': 1, 'SEED': 3, 'WORKDIR': str(tmp_path)}
    for name, value in values.items():
        monkeypatch.setattr(run, f'_{name}', type('Flag', (), {'value': value}))
    run.main([])
    page = (tmp_path / 'README.md').read_text()
    names = ['01-rain', '02-bell-0-2-0-5-dog-0-6-0-8']
    for name in names:
        assert f'({name}.ogg)' in page and f'({name}.png)' in page
        assert f'src="{name}.ogg"' in page
        assert (tmp_path / f'{name}.png').stat().st_size > 5_000
        assert soundfile.info(tmp_path / f'{name}.ogg').frames == 48_000
    assert '"rain"' in page and '`bell@0.2-0.5; dog@0.6-0.8`' in page
    assert '--steps=1 --seed=3' in page


def test_every_example_can_be_asked_for(experiment):
    from realaudio_jax.timeline import Timeline

    run = experiment('examples')
    assert len(run.EXAMPLES) == 12 and len(set(run.EXAMPLES)) == 12
    for prompt, events in run.EXAMPLES:
        assert prompt or Timeline.parse(events, run.SECONDS).events
