from tierproxy.config.raw import did_you_mean


def test_did_you_mean() -> None:
    assert did_you_mean("matc", ["match", "archive"]) == "; did you mean 'match'?"
    assert did_you_mean("zzz", ["match", "archive"]) == "; known here: archive, match"
    assert did_you_mean("zzz", []) == ""
