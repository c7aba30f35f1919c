import ruac_jax


def test_version_matches_the_installed_distribution():
    from importlib.metadata import version

    assert version("ruac_jax") == ruac_jax.__version__
