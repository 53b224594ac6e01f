def test_a_long_search_says_now_and_then_how_far_it_is(experiment, capsys):
    run = experiment('detect')
    seldom, always = run.progress(3600.0), run.progress(0.0)
    for at_s in (0.0, 90.0):
        seldom(at_s)
        always(at_s)
    assert capsys.readouterr().err.splitlines() == ['0.0 minutes searched', '1.5 minutes searched']
